-- Health over time, windows put together to points of `step_us`; the newest revision of each window counts.
SELECT
    kind, chain, step, component,
    intDiv(toUnixTimestamp64Micro(window_start), %(step_us)s) * %(step_us)s AS start_unix_us,
    sum(events) AS events, sum(completed) AS completed, sum(failed) AS failed,
    if(sum(completed + failed) = 0, 0., sum(failed) / sum(completed + failed)) AS error_ratio,
    if(sum(completed + failed) = 0, 0., sum(mean_us * (completed + failed)) / sum(completed + failed)) AS mean_us,
    max(p95_us) AS worst_p95_us, max(p99_us) AS worst_p99_us, max(max_us) AS max_us, sum(affected_executions) AS affected_executions
FROM
(
    SELECT kind, chain, step, component, window_start,
        argMax(events, revision) AS events, argMax(completed, revision) AS completed, argMax(failed, revision) AS failed,
        argMax(mean_us, revision) AS mean_us, argMax(p95_us, revision) AS p95_us, argMax(p99_us, revision) AS p99_us,
        argMax(max_us, revision) AS max_us, argMax(affected_executions, revision) AS affected_executions
    FROM chain_health_metrics
    WHERE tenant = %(tenant)s
        AND window_start >= fromUnixTimestamp64Micro(%(since_us)s) AND window_start < fromUnixTimestamp64Micro(%(until_us)s)
        AND (%(kind)s = '' OR kind = %(kind)s) AND (%(chain)s = '' OR chain = %(chain)s)
        AND (%(step)s = '' OR step = %(step)s) AND (%(component)s = '' OR component = %(component)s)
    GROUP BY kind, chain, step, component, window_start
)
GROUP BY kind, chain, step, component, start_unix_us
HAVING (start_unix_us, kind, chain, step, component) > (%(after_us)s, %(after_kind)s, %(after_chain)s, %(after_step)s, %(after_component)s)
ORDER BY start_unix_us, kind, chain, step, component
LIMIT %(limit)s
