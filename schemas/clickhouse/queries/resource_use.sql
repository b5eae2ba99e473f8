-- Which chains consume most resources?
SELECT
    chain, uniqExact(execution) AS executions, sum(cpu) AS cpu_us, sum(io_wait) AS io_wait_us, max(memory) AS memory_max_bytes,
    sum(duration) AS busy_us, cpu_us / executions AS cpu_us_per_execution
FROM
(
    SELECT chain, execution, span, argMax(t.cpu_us, t.revision) AS cpu, argMax(t.io_wait_us, t.revision) AS io_wait,
        argMax(t.memory_bytes, t.revision) AS memory, argMax(t.duration_us, t.revision) AS duration
    FROM chain_execution_traces AS t
    WHERE tenant = %(tenant)s AND record_kind = 'step'
        AND start_time >= fromUnixTimestamp64Micro(%(since_us)s) AND start_time < fromUnixTimestamp64Micro(%(until_us)s)
    GROUP BY chain, execution, span
)
GROUP BY chain
ORDER BY cpu_us DESC, busy_us DESC, chain
LIMIT %(limit)s
