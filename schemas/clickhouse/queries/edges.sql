-- Dependencies that were observed in a stretch of hours, with their use.
SELECT
    kind, source, target, topic, groupUniqArray(32)(chain) AS chains, toUnixTimestamp(min(hour)) * 1000000 AS first_hour_unix_us,
    toUnixTimestamp(max(hour)) * 1000000 AS last_hour_unix_us, sum(count) AS uses, sum(failed) AS failures,
    if(uses = 0, 0., sum(latency_mean_us * count) / uses) AS mean_us, max(latency_max_us) AS max_us
FROM dependency_edges_hourly
WHERE tenant = %(tenant)s AND hour >= toStartOfHour(toDateTime(intDiv(%(since_us)s, 1000000), 'UTC')) AND hour < toDateTime(intDiv(%(until_us)s, 1000000), 'UTC')
    AND (%(chain)s = '' OR chain = %(chain)s)
GROUP BY kind, source, target, topic
ORDER BY kind, source, target, topic
LIMIT 5000
