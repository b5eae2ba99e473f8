-- How well a chain's runs hang together: how many of the parents that they name, within the execution, were seen themselves.
SELECT
    count() AS executions_seen, sum(of_execution) AS runs_in_all, sum(beginnings) AS without_parents, sum(length(named)) AS parents_named,
    sum(arrayCount(parent -> has(spans, parent), named)) AS parents_seen
FROM
(
    SELECT
        execution, count() AS of_execution, countIf(empty(newest)) AS beginnings, groupArray(span) AS spans,
        arrayFlatten(groupArray(arrayMap(p -> p.1, arrayFilter(p -> p.2 IN ('', execution), newest)))) AS named
    FROM
    (
        SELECT execution, span, argMax(parents, revision) AS newest
        FROM chain_execution_traces
        WHERE tenant = %(tenant)s AND chain = %(chain)s AND record_kind = 'step' AND status != 'heard_of'
            AND start_time >= fromUnixTimestamp64Micro(%(since_us)s) AND start_time < fromUnixTimestamp64Micro(%(until_us)s)
        GROUP BY execution, span
    )
    GROUP BY execution
)
