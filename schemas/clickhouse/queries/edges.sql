-- Dependencies that were observed in a stretch of hours, with their use.
SELECT
    kind, source, target, topic, groupUniqArray(32)(chain) AS chains, toUnixTimestamp(min(hour)) * 1000000 AS first_hour_unix_us,
    toUnixTimestamp(max(hour)) * 1000000 AS last_hour_unix_us, sum(count) AS uses, sum(failed) AS failures,
    if(uses = 0, 0., sum(latency_sum_us) / uses) AS mean_us, max(latency_max_us) AS max_us
FROM dependency_use(tenant = %(tenant)s, since_us = %(since_us)s, until_us = %(until_us)s)
WHERE tenant = %(tenant)s AND (%(chain)s = '' OR chain = %(chain)s)
GROUP BY kind, source, target, topic
ORDER BY kind, source, target, topic
LIMIT 5000
