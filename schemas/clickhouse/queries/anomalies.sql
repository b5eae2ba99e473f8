-- Unusual windows, the newest first; the newest revision of each counts.
SELECT
    id, max(a.revision) AS newest, chain, step, component,
    toUnixTimestamp64Micro(a.window_start) AS window_start_unix_us, toUnixTimestamp64Micro(any(a.window_end)) AS window_end_unix_us,
    argMax(a.score, a.revision) AS last_score, argMax(a.threshold, a.revision) AS last_threshold, argMax(a.direction, a.revision) AS last_direction,
    argMax(a.features, a.revision) AS last_features, argMax(a.learned_windows, a.revision) AS last_learned_windows,
    argMax(a.detectors_version, a.revision) AS last_detectors_version
FROM chain_anomalies AS a
WHERE tenant = %(tenant)s
    AND window_start >= fromUnixTimestamp64Micro(%(since_us)s) AND window_start < fromUnixTimestamp64Micro(%(until_us)s)
    AND (%(chain)s = '' OR chain = %(chain)s) AND (%(step)s = '' OR step = %(step)s)
    AND (%(component)s = '' OR component = %(component)s)
    AND (%(after_us)s < 0 OR (toUnixTimestamp64Micro(window_start), id) < (%(after_us)s, %(after_id)s))
GROUP BY id, chain, step, component, window_start
HAVING last_score >= %(score)s
ORDER BY window_start_unix_us DESC, id DESC
LIMIT %(limit)s
