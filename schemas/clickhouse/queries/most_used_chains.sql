-- Which chains do users execute most frequently?
SELECT
    chain, sum(runs) AS executions, uniqCombined64Merge(14)(use.users) AS users, sum(completed) / executions AS success_ratio,
    groupUniqArrayIf(8)(tier, tier != '') AS tiers
FROM trace_use(tenant = %(tenant)s, since_us = %(since_us)s, until_us = %(until_us)s) AS use
WHERE tenant = %(tenant)s AND record_kind = 'execution'
GROUP BY chain
ORDER BY executions DESC, chain
LIMIT %(limit)s
