-- What the business asks (which chains are used, which steps fail for whom, what costs most) for weeks over millions of runs.
-- Plain sums of a materialized view would be wrong: it sees every row and every revision. Merging distinct counts of a week
-- takes longer than a person waits. So quarters of an hour are counted exactly from the traces, once they have been quiet for
-- a minute, and kept as numbers; a quarter that changes later is counted again. What has not been counted since its last
-- change is taken from the traces when it is asked for. The answer is therefore always that of the traces.
-- Execution ids that grow with time, as the SDK's do, keep the rows of a moment together: their granules are found by this.
ALTER TABLE chain_execution_traces ADD INDEX IF NOT EXISTS began start_time TYPE minmax GRANULARITY 1;

CREATE TABLE IF NOT EXISTS trace_quarters
(
    tenant LowCardinality(String) COMMENT 'tenant',
    quarter DateTime('UTC') COMMENT 'start of the quarter of an hour in which runs began (ended, where the beginning is unknown); event time, UTC',
    changed_at SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'server''s clock when a row of it last came, seconds UTC'
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, quarter)
TTL changed_at + INTERVAL 180 DAY
COMMENT 'When the traces of each quarter of an hour last changed, kept 180 days';

CREATE MATERIALIZED VIEW IF NOT EXISTS trace_quarters_mv TO trace_quarters
AS SELECT
    tenant,
    toStartOfFifteenMinutes(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC')) AS quarter,
    max(now()) AS changed_at
FROM chain_execution_traces
GROUP BY tenant, quarter
COMMENT 'Feeds trace_quarters';

-- What came before the view: marking a quarter twice changes nothing.
INSERT INTO trace_quarters
SELECT tenant, toStartOfFifteenMinutes(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC')) AS quarter, now()
FROM chain_execution_traces
GROUP BY tenant, quarter;

CREATE TABLE IF NOT EXISTS trace_use_counted
(
    tenant LowCardinality(String) COMMENT 'tenant',
    record_kind LowCardinality(String) COMMENT 'execution or step, as in chain_execution_traces; empty: no numbers, only that the quarter was counted',
    quarter DateTime('UTC') COMMENT 'start of the quarter of an hour, event time, UTC',
    chain LowCardinality(String) COMMENT 'chain name',
    step LowCardinality(String) COMMENT 'step name; empty for an execution',
    component LowCardinality(String) COMMENT 'component that ran it',
    tier LowCardinality(String) COMMENT 'subscription tier, or empty',
    runs UInt64 COMMENT 'executions, or runs of the step' CODEC(T64, ZSTD(1)),
    completed UInt64 COMMENT 'of them, ended well' CODEC(T64, ZSTD(1)),
    failed UInt64 COMMENT 'of them, ended badly' CODEC(T64, ZSTD(1)),
    completed_us UInt64 COMMENT 'durations of those that ended well, microseconds' CODEC(T64, ZSTD(1)),
    busy_us UInt64 COMMENT 'durations of all, microseconds' CODEC(T64, ZSTD(1)),
    cpu_us UInt64 COMMENT 'CPU time used, microseconds' CODEC(T64, ZSTD(1)),
    io_wait_us UInt64 COMMENT 'time waited for input and output, microseconds' CODEC(T64, ZSTD(1)),
    memory_max_bytes UInt64 COMMENT 'largest memory use of one run, bytes' CODEC(T64, ZSTD(1)),
    users AggregateFunction(uniqCombined64(14), String) COMMENT 'distinct users of the runs, within 2 %',
    counted_at DateTime('UTC') COMMENT 'server''s clock when it was counted, seconds UTC' CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(counted_at)
ORDER BY (tenant, record_kind, quarter, chain, step, component, tier)
TTL counted_at + INTERVAL 180 DAY
COMMENT 'Use of chains and steps per quarter of an hour, counted when it had settled, kept 180 days; read trace_use';

-- All rows of a counting have one moment: now() may be another second in another part of a query.
-- At most 500 quarters at a time, the newest first: a backlog is counted bit by bit, and a counting is one part of the table, so
-- that nobody sees half of it. No row is inserted before it began, but
-- for a clock that is ahead, which ingest refuses beyond minutes: so whole days of insertion are left out.
CREATE MATERIALIZED VIEW IF NOT EXISTS trace_use_counted_mv REFRESH EVERY 1 MINUTE APPEND TO trace_use_counted
AS WITH
    (
        SELECT (groupArray((tenant, quarter)), now()) FROM
        (
            SELECT t.tenant AS tenant, t.quarter AS quarter
            FROM (SELECT tenant, quarter, max(changed_at) AS changed FROM trace_quarters GROUP BY tenant, quarter) AS t
            LEFT JOIN (SELECT tenant, quarter, max(counted_at) AS counted FROM trace_use_counted WHERE record_kind = '' GROUP BY tenant, quarter) AS c
                ON c.tenant = t.tenant AND c.quarter = t.quarter
            WHERE t.changed + 60 < now() AND c.counted < t.changed + 60
            ORDER BY quarter DESC, tenant
            LIMIT 500
        )
    ) AS found,
    found.1 AS due,
    found.2 AS moment
SELECT
    tenant, record_kind, quarter, chain, step, component, tier, count() AS runs, countIf(status = 'completed') AS completed,
    countIf(status = 'failed') AS failed, sumIf(duration_us, status = 'completed') AS completed_us, sum(duration_us) AS busy_us,
    sum(cpu_us) AS cpu_us, sum(io_wait_us) AS io_wait_us, max(memory_bytes) AS memory_max_bytes,
    uniqCombined64StateIf(14)(user, user != '') AS users, moment AS counted_at
FROM
(
    SELECT tenant, record_kind, chain, execution, span, newest.1 AS quarter, newest.2 AS step, newest.3 AS component, newest.4 AS tier,
        newest.5 AS status, newest.6 AS duration_us, newest.7 AS cpu_us, newest.8 AS io_wait_us, newest.9 AS memory_bytes, newest.10 AS user
    FROM
    (
        SELECT tenant, record_kind, chain, execution, span, argMax((
            toStartOfFifteenMinutes(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC')), step, component, tier, status,
            t.duration_us, t.cpu_us, t.io_wait_us, t.memory_bytes, t.user), revision) AS newest
        FROM chain_execution_traces AS t
        WHERE status != 'heard_of' AND inserted_at >= arrayMin(x -> x.2, due) - 86400
            AND (start_time >= arrayMin(x -> x.2, due) AND start_time < arrayMax(x -> x.2, due) + 900
                OR start_time = 0 AND end_time >= arrayMin(x -> x.2, due) AND end_time < arrayMax(x -> x.2, due) + 900)
            AND (tenant, toStartOfFifteenMinutes(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC'))) IN (SELECT arrayJoin(due))
        GROUP BY tenant, record_kind, chain, execution, span
    )
)
GROUP BY tenant, record_kind, quarter, chain, step, component, tier
UNION ALL
SELECT pair.1, '', pair.2, '', '', '', '', 0, 0, 0, 0, 0, 0, 0, 0, uniqCombined64StateIf(14)('', false), moment
FROM (SELECT arrayJoin(due) AS pair)
GROUP BY pair
SETTINGS max_bytes_before_external_group_by = 500000000
COMMENT 'Counts quarters of an hour that have been quiet for a minute into trace_use_counted';

-- Quarters that begin in a stretch: those that have settled as they were counted last (a correction may have left a key
-- without runs), the others from the traces.
CREATE VIEW IF NOT EXISTS trace_use
AS WITH
    toStartOfFifteenMinutes(toDateTime(intDiv({since_us:UInt64}, 1000000), 'UTC')) AS since,
    toDateTime(intDiv({until_us:UInt64} + 999999, 1000000), 'UTC') AS until,
    (
        SELECT groupArray(quarter) FROM
        (
            SELECT t.quarter AS quarter
            FROM (SELECT quarter, max(changed_at) AS changed FROM trace_quarters WHERE tenant = {tenant:String} GROUP BY quarter) AS t
            LEFT JOIN
            (
                SELECT quarter, max(counted_at) AS counted FROM trace_use_counted WHERE tenant = {tenant:String} AND record_kind = '' GROUP BY quarter
            ) AS c ON c.quarter = t.quarter
            WHERE t.quarter >= since AND t.quarter < until AND c.counted < t.changed + 60
        )
    ) AS live
SELECT tenant, record_kind, quarter, chain, step, component, tier, runs, completed, failed, completed_us, busy_us, cpu_us, io_wait_us, memory_max_bytes, users
FROM trace_use_counted
WHERE tenant = {tenant:String} AND record_kind != '' AND quarter >= since AND quarter < until AND quarter NOT IN (SELECT arrayJoin(live))
    AND (quarter, counted_at) IN
    (
        SELECT quarter, max(counted_at) FROM trace_use_counted
        WHERE tenant = {tenant:String} AND record_kind = '' AND quarter >= since AND quarter < until GROUP BY quarter
    )
UNION ALL
SELECT
    tenant, record_kind, quarter, chain, step, component, tier, count() AS runs, countIf(status = 'completed') AS completed,
    countIf(status = 'failed') AS failed, sumIf(duration_us, status = 'completed') AS completed_us, sum(duration_us) AS busy_us,
    sum(cpu_us) AS cpu_us, sum(io_wait_us) AS io_wait_us, max(memory_bytes) AS memory_max_bytes, uniqCombined64StateIf(14)(user, user != '') AS users
FROM
(
    SELECT tenant, record_kind, chain, execution, span, newest.1 AS quarter, newest.2 AS step, newest.3 AS component, newest.4 AS tier,
        newest.5 AS status, newest.6 AS duration_us, newest.7 AS cpu_us, newest.8 AS io_wait_us, newest.9 AS memory_bytes, newest.10 AS user
    FROM
    (
        SELECT tenant, record_kind, chain, execution, span, argMax((
            toStartOfFifteenMinutes(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC')), step, component, tier, status,
            t.duration_us, t.cpu_us, t.io_wait_us, t.memory_bytes, t.user), revision) AS newest
        FROM chain_execution_traces AS t
        WHERE notEmpty(live) AND tenant = {tenant:String} AND status != 'heard_of'
            AND inserted_at >= arrayMin(live) - 86400
            AND (start_time >= arrayMin(live) AND start_time < arrayMax(live) + 900
                OR start_time = 0 AND end_time >= arrayMin(live) AND end_time < arrayMax(live) + 900)
            AND toStartOfFifteenMinutes(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC')) IN (SELECT arrayJoin(live))
        GROUP BY tenant, record_kind, chain, execution, span
    )
)
GROUP BY tenant, record_kind, quarter, chain, step, component, tier
COMMENT 'Use of chains and steps of a tenant per quarter of an hour: trace_use(tenant = , since_us = , until_us = )';
