-- The slowest runs of steps of a chain in a stretch of time.
SELECT
    execution, span, any(step) AS step_name, any(component) AS component_name, argMax(t.duration_us, t.revision) AS took_us,
    argMax(t.status, t.revision) AS last_status, argMax(toUnixTimestamp64Micro(t.start_time), t.revision) AS start_unix_us
FROM chain_execution_traces AS t
WHERE tenant = %(tenant)s AND chain = %(chain)s AND record_kind = 'step' AND (%(step)s = '' OR step = %(step)s)
    AND start_time >= fromUnixTimestamp64Micro(%(since_us)s) AND start_time < fromUnixTimestamp64Micro(%(until_us)s)
GROUP BY execution, span
ORDER BY took_us DESC, execution, span
LIMIT %(limit)s
