-- Three materialized views, each into a table of its own, each read through a plain view of the final name.
-- A view sees every insert: rows written twice, and every revision of a thing. So a plain sum() would count too much.
-- All states here are idempotent instead:
-- * Windows: the state of an hour is a map of window -> (revision, counts), merged by max. Tuples compare from the left, so
--   the highest revision wins, and the same row twice changes nothing. The sum is taken when it is read.
-- * Steps: too many for a map, so distinct runs are counted by uniqCombined64(17): a state of at most 96 KiB, at most 0.6 %
--   off for 1,000 to 1,000,000 runs (measured; with precision 14 it was 3 % at 40,000). A run that was ever reported failed counts as failed; max() is idempotent as it is. A late event that moves a
--   run's beginning into another hour leaves it counted in both.
-- No PARTITION BY: the event times of one block may lie anywhere, and these tables are small.
CREATE TABLE IF NOT EXISTS chain_health_hourly_state
(
    tenant LowCardinality(String) COMMENT 'tenant',
    kind LowCardinality(String) COMMENT 'step, chain or component, as in chain_health_metrics',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    step LowCardinality(String) COMMENT 'step name, or empty',
    component LowCardinality(String) COMMENT 'component name, or empty',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    windows AggregateFunction(maxMap, Map(Int64, Tuple(UInt64, UInt64, UInt64, UInt64, Float64, Float64, UInt64)))
        COMMENT 'window start in microseconds UTC -> revision, events, completed, failed, duration sum in microseconds, p99 in microseconds, affected executions',
    inserted_at SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'when a row last came, seconds UTC'
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, kind, chain, step, component, hour)
TTL inserted_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Windows of chain_health_metrics gathered per hour, kept 180 days; read chain_health_hourly';

CREATE MATERIALIZED VIEW IF NOT EXISTS chain_health_hourly_mv TO chain_health_hourly_state
AS SELECT
    tenant, kind, chain, step, component,
    toStartOfHour(toDateTime(window_start, 'UTC')) AS hour,
    maxMapState(map(toUnixTimestamp64Micro(window_start), (revision, events, completed, failed, mean_us * (completed + failed), p99_us, affected_executions))) AS windows,
    max(inserted_at) AS inserted_at
FROM chain_health_metrics
GROUP BY tenant, kind, chain, step, component, hour
COMMENT 'Feeds chain_health_hourly_state';

CREATE VIEW IF NOT EXISTS chain_health_hourly
(
    tenant LowCardinality(String) COMMENT 'tenant',
    kind LowCardinality(String) COMMENT 'step, chain or component',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    step LowCardinality(String) COMMENT 'step name, or empty',
    component LowCardinality(String) COMMENT 'component name, or empty',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    windows UInt64 COMMENT 'windows in the hour',
    events UInt64 COMMENT 'events in the hour',
    completed UInt64 COMMENT 'runs that ended well',
    failed UInt64 COMMENT 'runs that ended badly',
    error_ratio Float64 COMMENT 'failed / (completed + failed), 0 without either; 0 to 1',
    mean_us Float64 COMMENT 'mean duration, microseconds',
    worst_p99_us Float64 COMMENT '99th percentile of the duration in the worst window, microseconds',
    affected_executions UInt64 COMMENT 'executions with a violation'
)
AS SELECT
    tenant, kind, chain, step, component, hour,
    length(rows) AS windows,
    arraySum(r -> r.2, rows) AS events,
    arraySum(r -> r.3, rows) AS completed,
    arraySum(r -> r.4, rows) AS failed,
    if(completed + failed = 0, 0., failed / (completed + failed)) AS error_ratio,
    if(completed + failed = 0, 0., arraySum(r -> r.5, rows) / (completed + failed)) AS mean_us,
    arrayMax(r -> r.6, rows) AS worst_p99_us,
    arraySum(r -> r.7, rows) AS affected_executions
FROM
(
    SELECT tenant, kind, chain, step, component, hour, mapValues(maxMapMerge(windows)) AS rows
    FROM chain_health_hourly_state
    GROUP BY tenant, kind, chain, step, component, hour
)
COMMENT 'Health per hour of steps, chains and components';

CREATE TABLE IF NOT EXISTS step_errors_hourly_state
(
    tenant LowCardinality(String) COMMENT 'tenant',
    tier LowCardinality(String) COMMENT 'subscription tier, or empty',
    chain LowCardinality(String) COMMENT 'chain name',
    step LowCardinality(String) COMMENT 'step name',
    component LowCardinality(String) COMMENT 'component that ran it',
    hour DateTime('UTC') COMMENT 'start of the hour of the beginning, of the end where that is unknown; event time, UTC',
    runs AggregateFunction(uniqCombined64(17), UInt64) COMMENT 'distinct runs of the step',
    failed_runs AggregateFunction(uniqCombined64(17), UInt64) COMMENT 'distinct runs that were reported failed',
    max_us SimpleAggregateFunction(max, UInt64) COMMENT 'longest duration, microseconds',
    inserted_at SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'when a row last came, seconds UTC'
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, chain, step, component, tier, hour)
TTL inserted_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Distinct step runs per hour and tier, kept 180 days; read step_errors_hourly';

CREATE MATERIALIZED VIEW IF NOT EXISTS step_errors_hourly_mv TO step_errors_hourly_state
AS SELECT
    tenant, tier, chain, step, component,
    toStartOfHour(toDateTime(if(toUnixTimestamp64Micro(start_time) = 0, end_time, start_time), 'UTC')) AS hour,
    uniqCombined64State(17)(cityHash64(execution, span)) AS runs,
    uniqCombined64StateIf(17)(cityHash64(execution, span), status = 'failed') AS failed_runs,
    max(duration_us) AS max_us,
    max(inserted_at) AS inserted_at
FROM chain_execution_traces
WHERE record_kind = 'step' AND status != 'heard_of'
GROUP BY tenant, tier, chain, step, component, hour
COMMENT 'Feeds step_errors_hourly_state';

CREATE VIEW IF NOT EXISTS step_errors_hourly
(
    tenant LowCardinality(String) COMMENT 'tenant',
    tier LowCardinality(String) COMMENT 'subscription tier, or empty',
    chain LowCardinality(String) COMMENT 'chain name',
    step LowCardinality(String) COMMENT 'step name',
    component LowCardinality(String) COMMENT 'component that ran it',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    runs UInt64 COMMENT 'distinct runs of the step, within 1 %',
    failed_runs UInt64 COMMENT 'of them reported failed, within 1 %',
    max_us UInt64 COMMENT 'longest duration, microseconds'
)
AS SELECT
    tenant, tier, chain, step, component, hour,
    uniqCombined64Merge(17)(s.runs) AS runs,
    uniqCombined64Merge(17)(s.failed_runs) AS failed_runs,
    max(s.max_us) AS max_us
FROM step_errors_hourly_state AS s
GROUP BY tenant, tier, chain, step, component, hour
COMMENT 'Runs and failures of steps per hour, by tier';

CREATE TABLE IF NOT EXISTS dependency_edges_hourly_state
(
    tenant LowCardinality(String) COMMENT 'tenant',
    kind LowCardinality(String) COMMENT 'call, flow or topic, as in chain_dependency_events',
    source LowCardinality(String) COMMENT 'component the edge begins at',
    target LowCardinality(String) COMMENT 'component the edge leads to',
    topic LowCardinality(String) COMMENT 'Kafka topic between them, or empty',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    windows AggregateFunction(maxMap, Map(Int64, Tuple(UInt64, UInt64, UInt64, Float64, UInt64)))
        COMMENT 'window start in microseconds UTC -> revision, count, failed, latency sum in microseconds, longest latency in microseconds',
    inserted_at SimpleAggregateFunction(max, DateTime('UTC')) COMMENT 'when a row last came, seconds UTC'
)
ENGINE = AggregatingMergeTree
ORDER BY (tenant, source, target, kind, topic, chain, hour)
TTL inserted_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Windows of chain_dependency_events gathered per hour, kept 180 days; read dependency_edges_hourly';

CREATE MATERIALIZED VIEW IF NOT EXISTS dependency_edges_hourly_mv TO dependency_edges_hourly_state
AS SELECT
    tenant, kind, source, target, topic, chain,
    toStartOfHour(toDateTime(window_start, 'UTC')) AS hour,
    maxMapState(map(toUnixTimestamp64Micro(window_start), (revision, count, failed, latency_mean_us * count, latency_max_us))) AS windows,
    max(inserted_at) AS inserted_at
FROM chain_dependency_events
GROUP BY tenant, kind, source, target, topic, chain, hour
COMMENT 'Feeds dependency_edges_hourly_state';

CREATE VIEW IF NOT EXISTS dependency_edges_hourly
(
    tenant LowCardinality(String) COMMENT 'tenant',
    kind LowCardinality(String) COMMENT 'call, flow or topic',
    source LowCardinality(String) COMMENT 'component the edge begins at',
    target LowCardinality(String) COMMENT 'component the edge leads to',
    topic LowCardinality(String) COMMENT 'Kafka topic between them, or empty',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    hour DateTime('UTC') COMMENT 'start of the hour, event time, UTC',
    count UInt64 COMMENT 'times the edge was used',
    failed UInt64 COMMENT 'of them, target failed',
    latency_mean_us Float64 COMMENT 'mean latency, microseconds',
    latency_max_us UInt64 COMMENT 'longest latency, microseconds'
)
AS SELECT
    tenant, kind, source, target, topic, chain, hour,
    arraySum(r -> r.2, rows) AS count,
    arraySum(r -> r.3, rows) AS failed,
    if(count = 0, 0., arraySum(r -> r.4, rows) / count) AS latency_mean_us,
    arrayMax(r -> r.5, rows) AS latency_max_us
FROM
(
    SELECT tenant, kind, source, target, topic, chain, hour, mapValues(maxMapMerge(windows)) AS rows
    FROM dependency_edges_hourly_state
    GROUP BY tenant, kind, source, target, topic, chain, hour
)
COMMENT 'Use, failures and latency of every dependency per hour';
