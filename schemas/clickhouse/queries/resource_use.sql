-- Which chains consume most resources? What their steps used, beside how often the chains ran.
SELECT
    chain, sumIf(runs, record_kind = 'execution') AS executions, sumIf(u.cpu_us, record_kind = 'step') AS cpu_us,
    sumIf(u.io_wait_us, record_kind = 'step') AS io_wait_us, max(u.memory_max_bytes) AS memory_max_bytes,
    sumIf(u.busy_us, record_kind = 'step') AS busy_us, if(executions = 0, 0., cpu_us / executions) AS cpu_us_per_execution
FROM trace_use(tenant = %(tenant)s, since_us = %(since_us)s, until_us = %(until_us)s) AS u
WHERE tenant = %(tenant)s
GROUP BY chain
ORDER BY cpu_us DESC, busy_us DESC, chain
LIMIT %(limit)s
