-- Which steps fail most often for which user tiers?
SELECT
    chain, step, component, tier, sum(runs) AS runs_in_all, sum(failed) AS failures, failures / runs_in_all AS failure_ratio
FROM trace_use(tenant = %(tenant)s, since_us = %(since_us)s, until_us = %(until_us)s)
WHERE tenant = %(tenant)s AND record_kind = 'step' AND (%(tier)s = '' OR tier = %(tier)s)
GROUP BY chain, step, component, tier
HAVING failures > 0
ORDER BY failures DESC, failure_ratio DESC, chain, step, component, tier
LIMIT %(limit)s
