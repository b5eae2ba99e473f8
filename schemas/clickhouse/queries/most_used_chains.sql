-- Which chains do users execute most frequently?
SELECT
    chain, uniqExact(execution) AS executions, uniqExactIf(user, user != '') AS users,
    uniqExactIf(execution, last_status = 'completed') / executions AS success_ratio,
    groupUniqArrayIf(8)(tier, tier != '') AS tiers
FROM
(
    SELECT chain, execution, any(user) AS user, any(tier) AS tier, argMax(status, revision) AS last_status
    FROM chain_execution_traces
    WHERE tenant = %(tenant)s AND record_kind = 'execution'
        AND start_time >= fromUnixTimestamp64Micro(%(since_us)s) AND start_time < fromUnixTimestamp64Micro(%(until_us)s)
    GROUP BY chain, execution
)
GROUP BY chain
ORDER BY executions DESC, chain
LIMIT %(limit)s
