-- Dependencies of weeks, by the way of 0009: hours that have been quiet for a minute are counted and kept as numbers, the others
-- are taken from the windows. Merging the windows' maps of a week, as dependency_edges_hourly did, grew with every window.
-- The rows of an edge lie together by time: the granules of an hour are found by this.
ALTER TABLE chain_dependency_events ADD INDEX IF NOT EXISTS began window_start TYPE minmax GRANULARITY 1;

CREATE TABLE IF NOT EXISTS dependency_hours
(
    tenant LowCardinality(String) COMMENT 'tenant',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    changed_at SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'server''s clock when a window of it last came, seconds UTC'
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, hour)
TTL changed_at + INTERVAL 180 DAY
COMMENT 'When the dependencies of each hour last changed, kept 180 days';

CREATE MATERIALIZED VIEW IF NOT EXISTS dependency_hours_mv TO dependency_hours
AS SELECT tenant, toStartOfHour(toDateTime(window_start, 'UTC')) AS hour, max(now()) AS changed_at
FROM chain_dependency_events
GROUP BY tenant, hour
COMMENT 'Feeds dependency_hours';

INSERT INTO dependency_hours
SELECT tenant, toStartOfHour(toDateTime(window_start, 'UTC')) AS hour, now()
FROM chain_dependency_events
GROUP BY tenant, hour;

CREATE TABLE IF NOT EXISTS dependency_use_counted
(
    tenant LowCardinality(String) COMMENT 'tenant',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    kind LowCardinality(String) COMMENT 'call, flow or topic, as in chain_dependency_events; empty: no numbers, only that the hour was counted',
    source LowCardinality(String) COMMENT 'component the edge begins at',
    target LowCardinality(String) COMMENT 'component the edge leads to',
    topic LowCardinality(String) COMMENT 'Kafka topic between them, or empty',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    count UInt64 COMMENT 'times the edge was used' CODEC(T64, ZSTD(1)),
    failed UInt64 COMMENT 'of them, target failed' CODEC(T64, ZSTD(1)),
    latency_sum_us Float64 COMMENT 'latencies of all uses, microseconds' CODEC(ZSTD(1)),
    latency_max_us UInt64 COMMENT 'longest latency, microseconds' CODEC(T64, ZSTD(1)),
    counted_at DateTime('UTC') COMMENT 'server''s clock when it was counted, seconds UTC' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(counted_at)
ORDER BY (tenant, hour, kind, source, target, topic, chain)
TTL counted_at + INTERVAL 180 DAY
COMMENT 'Use of dependencies per hour, counted when it had settled, kept 180 days; read dependency_use';

CREATE MATERIALIZED VIEW IF NOT EXISTS dependency_use_counted_mv REFRESH EVERY 1 MINUTE APPEND TO dependency_use_counted
AS WITH
    (
        SELECT (groupArray((tenant, hour)), now()) FROM
        (
            SELECT h.tenant AS tenant, h.hour AS hour
            FROM (SELECT tenant, hour, max(changed_at) AS changed FROM dependency_hours GROUP BY tenant, hour) AS h
            LEFT JOIN (SELECT tenant, hour, max(counted_at) AS counted FROM dependency_use_counted WHERE kind = '' GROUP BY tenant, hour) AS c
                ON c.tenant = h.tenant AND c.hour = h.hour
            WHERE h.changed + 60 < now() AND c.counted < h.changed + 60
            ORDER BY hour DESC, tenant
            LIMIT 500
        )
    ) AS found,
    found.1 AS due,
    found.2 AS moment
SELECT
    tenant, hour, kind, source, target, topic, chain, sum(newest.1) AS count, sum(newest.2) AS failed, sum(newest.3) AS latency_sum_us,
    max(newest.4) AS latency_max_us, moment AS counted_at
FROM
(
    SELECT tenant, kind, source, target, topic, chain, toStartOfHour(toDateTime(window_start, 'UTC')) AS hour, window_start,
        argMax((e.count, e.failed, latency_mean_us * e.count, e.latency_max_us), revision) AS newest
    FROM chain_dependency_events AS e
    WHERE window_start >= arrayMin(x -> x.2, due) AND window_start < arrayMax(x -> x.2, due) + 3600
        AND (tenant, toStartOfHour(toDateTime(window_start, 'UTC'))) IN (SELECT arrayJoin(due))
    GROUP BY tenant, kind, source, target, topic, chain, window_start
)
GROUP BY tenant, hour, kind, source, target, topic, chain
UNION ALL
SELECT pair.1, pair.2, '', '', '', '', '', 0, 0, 0., 0, moment
FROM (SELECT arrayJoin(due) AS pair)
GROUP BY pair
SETTINGS max_bytes_before_external_group_by = 500000000
COMMENT 'Counts hours that have been quiet for a minute into dependency_use_counted';

CREATE VIEW IF NOT EXISTS dependency_use
AS WITH
    toStartOfHour(toDateTime(intDiv({since_us:UInt64}, 1000000), 'UTC')) AS since,
    toDateTime(intDiv({until_us:UInt64} + 999999, 1000000), 'UTC') AS until,
    (
        SELECT groupArray(hour) FROM
        (
            SELECT h.hour AS hour
            FROM (SELECT hour, max(changed_at) AS changed FROM dependency_hours WHERE tenant = {tenant:String} GROUP BY hour) AS h
            LEFT JOIN (SELECT hour, max(counted_at) AS counted FROM dependency_use_counted WHERE tenant = {tenant:String} AND kind = '' GROUP BY hour) AS c
                ON c.hour = h.hour
            WHERE h.hour >= since AND h.hour < until AND c.counted < h.changed + 60
        )
    ) AS live
SELECT tenant, hour, kind, source, target, topic, chain, count, failed, latency_sum_us, latency_max_us
FROM dependency_use_counted
WHERE tenant = {tenant:String} AND kind != '' AND hour >= since AND hour < until AND hour NOT IN (SELECT arrayJoin(live))
    AND (hour, counted_at) IN
    (
        SELECT hour, max(counted_at) FROM dependency_use_counted
        WHERE tenant = {tenant:String} AND kind = '' AND hour >= since AND hour < until GROUP BY hour
    )
UNION ALL
SELECT
    tenant, hour, kind, source, target, topic, chain, sum(newest.1) AS count, sum(newest.2) AS failed, sum(newest.3) AS latency_sum_us,
    max(newest.4) AS latency_max_us
FROM
(
    SELECT tenant, kind, source, target, topic, chain, toStartOfHour(toDateTime(window_start, 'UTC')) AS hour, window_start,
        argMax((e.count, e.failed, latency_mean_us * e.count, e.latency_max_us), revision) AS newest
    FROM chain_dependency_events AS e
    WHERE notEmpty(live) AND tenant = {tenant:String} AND window_start >= arrayMin(live) AND window_start < arrayMax(live) + 3600
        AND toStartOfHour(toDateTime(window_start, 'UTC')) IN (SELECT arrayJoin(live))
    GROUP BY tenant, kind, source, target, topic, chain, window_start
)
GROUP BY tenant, hour, kind, source, target, topic, chain
COMMENT 'Use of a tenant''s dependencies per hour: dependency_use(tenant = , since_us = , until_us = )';

-- What these and 0009 replace.
DROP TABLE IF EXISTS dependency_edges_hourly_mv;
DROP TABLE IF EXISTS dependency_edges_hourly;
DROP TABLE IF EXISTS dependency_edges_hourly_state;
DROP TABLE IF EXISTS step_errors_hourly_mv;
DROP TABLE IF EXISTS step_errors_hourly;
DROP TABLE IF EXISTS step_errors_hourly_state;
