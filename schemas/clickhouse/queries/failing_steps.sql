-- Which steps fail most often for which user tiers?
SELECT
    chain, step, component, tier, sum(runs) AS runs_in_all, sum(failed_runs) AS failures, failures / runs_in_all AS failure_ratio
FROM step_errors_hourly
WHERE tenant = %(tenant)s AND hour >= toStartOfHour(toDateTime(intDiv(%(since_us)s, 1000000), 'UTC')) AND hour < toDateTime(intDiv(%(until_us)s, 1000000), 'UTC')
    AND (%(tier)s = '' OR tier = %(tier)s)
GROUP BY chain, step, component, tier
HAVING failures > 0
ORDER BY failures DESC, failure_ratio DESC, chain, step, component, tier
LIMIT %(limit)s
