-- Are chains getting faster or slower over time? Per chain the straight line through the mean durations of its buckets
-- (`change_ratio`: from the line's first to its last point), and where its level changed most: the bucket before which the
-- cumulative sum of deviations from the mean is farthest from 0 (CUSUM; Page 1954), with the means on both sides.
SELECT
    chain, length(means) AS buckets, executions_in_all AS executions, arrayAvg(means) AS mean_us,
    if(buckets < 2, 0., line.1 * (buckets - 1) / greatest(line.2, 1.)) AS change_ratio,
    multiIf(buckets < 3, 'unknown', change_ratio > 0.1, 'slower', change_ratio < -0.1, 'faster', 'steady') AS trend,
    if(buckets < 3, 0, starts[cut + 1]) AS change_unix_us,
    if(buckets < 3, 0., arrayAvg(arraySlice(means, 1, cut))) AS before_us,
    if(buckets < 3, 0., arrayAvg(arraySlice(means, cut + 1))) AS after_us
FROM
(
    SELECT chain, starts, means, executions_in_all,
        arrayReduce('simpleLinearRegression', arrayMap(n -> toFloat64(n), range(length(means))), means) AS line,
        arrayMap(x -> abs(x), arrayPopBack(arrayCumSum(x -> x - arrayAvg(means), means))) AS deviations,
        if(empty(deviations), 1, indexOf(deviations, arrayMax(deviations))) AS cut
    FROM
    (
        SELECT chain, arrayMap(x -> x.1, points) AS starts, arrayMap(x -> x.2, points) AS means,
            arraySort(groupArray((bucket_us, mean))) AS points, sum(executions) AS executions_in_all
        FROM
        (
            SELECT chain, intDiv(toUnixTimestamp(quarter) * 1000000, %(step_us)s) * %(step_us)s AS bucket_us,
                sum(completed_us) / sum(completed) AS mean, sum(completed) AS executions
            FROM trace_use(tenant = %(tenant)s, since_us = %(since_us)s, until_us = %(until_us)s)
            WHERE tenant = %(tenant)s AND record_kind = 'execution'
            GROUP BY chain, bucket_us
            HAVING executions > 0
        )
        GROUP BY chain
    )
)
ORDER BY abs(change_ratio) DESC, chain
LIMIT %(limit)s
