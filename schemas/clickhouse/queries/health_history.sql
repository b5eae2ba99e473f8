-- Health over time, windows put together to points of `step_us`; the newest revision of each window counts.
SELECT
    kind, chain, step, component,
    intDiv(toUnixTimestamp64Micro(w.window_start), %(step_us)s) * %(step_us)s AS start_unix_us,
    sum(w.seen) AS events, sum(w.well) AS completed, sum(w.badly) AS failed,
    if(sum(w.well + w.badly) = 0, 0., sum(w.badly) / sum(w.well + w.badly)) AS error_ratio,
    if(sum(w.well + w.badly) = 0, 0., sum(w.mean * (w.well + w.badly)) / sum(w.well + w.badly)) AS mean_us,
    max(w.p95) AS worst_p95_us, max(w.p99) AS worst_p99_us, max(w.longest) AS max_us, sum(w.affected) AS affected_executions
FROM
(
    SELECT kind, chain, step, component, window_start,
        argMax(m.events, m.revision) AS seen, argMax(m.completed, m.revision) AS well, argMax(m.failed, m.revision) AS badly,
        argMax(m.mean_us, m.revision) AS mean, argMax(m.p95_us, m.revision) AS p95, argMax(m.p99_us, m.revision) AS p99,
        argMax(m.max_us, m.revision) AS longest, argMax(m.affected_executions, m.revision) AS affected
    FROM chain_health_metrics AS m
    WHERE tenant = %(tenant)s
        AND window_start >= fromUnixTimestamp64Micro(%(since_us)s) AND window_start < fromUnixTimestamp64Micro(%(until_us)s)
        AND (%(kind)s = '' OR kind = %(kind)s) AND (%(chain)s = '' OR chain = %(chain)s)
        AND (%(step)s = '' OR step = %(step)s) AND (%(component)s = '' OR component = %(component)s)
    GROUP BY kind, chain, step, component, window_start
) AS w
GROUP BY kind, chain, step, component, start_unix_us
HAVING (start_unix_us, kind, chain, step, component) > (%(after_us)s, %(after_kind)s, %(after_chain)s, %(after_step)s, %(after_component)s)
ORDER BY start_unix_us, kind, chain, step, component
LIMIT %(limit)s
