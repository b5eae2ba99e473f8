-- How the tables of this folder are laid out, and why:
-- * Sorting key = what identifies the thing. A later revision replaces an earlier one, and the same row written twice
--   becomes one. Merges do that eventually: ask with FINAL, or with ORDER BY revision DESC LIMIT 1 BY <key>.
-- * PARTITION BY and TTL follow inserted_at, not event time. Imported and replayed traces may be years old: by event time
--   they would be deleted at once, and one block could touch hundreds of partitions. By inserted_at, which is one value
--   per block and kept in sink_progress, a block is one part of one partition, so that it is there in full or not at all,
--   and old partitions are dropped whole (ttl_only_drop_parts).
-- * non_replicated_deduplication_window: tokens of that many blocks are remembered. A block retried later than that would
--   come in twice and be made one by the sorting key.
CREATE TABLE IF NOT EXISTS chain_health_metrics
(
    id String COMMENT 'window id, 32 hex digits' CODEC(ZSTD(1)),
    kind LowCardinality(String) COMMENT 'step, chain (a chain''s executions; step and component empty) or component (chain and step empty)',
    tenant LowCardinality(String) COMMENT 'tenant',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    step LowCardinality(String) COMMENT 'step name, or empty',
    component LowCardinality(String) COMMENT 'component name, or empty',
    window_start DateTime64(6, 'UTC') COMMENT 'start of the window, event time, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    window_end DateTime64(6, 'UTC') COMMENT 'end of the window, excluded, event time, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    revision UInt64 COMMENT '0 when the window closed, higher when late data changed it' CODEC(T64, ZSTD(1)),
    watermark DateTime64(6, 'UTC') COMMENT 'event time that all sources had reached when this was emitted, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    events UInt64 COMMENT 'events in the window, duplicates left out' CODEC(T64, ZSTD(1)),
    started UInt64 COMMENT 'runs begun' CODEC(T64, ZSTD(1)),
    completed UInt64 COMMENT 'runs that ended well' CODEC(T64, ZSTD(1)),
    failed UInt64 COMMENT 'runs that ended badly' CODEC(T64, ZSTD(1)),
    error_ratio Float64 COMMENT 'failed / (completed + failed), 0 without either; 0 to 1' CODEC(ZSTD(1)),
    throughput_per_s Float64 COMMENT 'ended runs per second' CODEC(ZSTD(1)),
    mean_us Float64 COMMENT 'mean duration, microseconds' CODEC(ZSTD(1)),
    p50_us Float64 COMMENT 'median duration, microseconds, within the histogram''s error' CODEC(ZSTD(1)),
    p95_us Float64 COMMENT '95th percentile of the duration, microseconds' CODEC(ZSTD(1)),
    p99_us Float64 COMMENT '99th percentile of the duration, microseconds' CODEC(ZSTD(1)),
    max_us UInt64 COMMENT 'longest duration, microseconds' CODEC(T64, ZSTD(1)),
    durations_scale Int16 COMMENT 'scale of the exponential histogram of durations: base = 2^(2^-scale)' CODEC(ZSTD(1)),
    durations_zero UInt64 COMMENT 'durations of 0 microseconds' CODEC(T64, ZSTD(1)),
    durations_buckets Map(Int32, UInt64) COMMENT 'bucket i counts durations in (base^i, base^(i+1)] microseconds' CODEC(ZSTD(1)),
    violations Map(String, UInt64) COMMENT 'count per violation type' CODEC(ZSTD(1)),
    affected_executions UInt64 COMMENT 'executions with a violation' CODEC(T64, ZSTD(1)),
    affected_sample Array(String) COMMENT 'some of their ids' CODEC(ZSTD(1)),
    cpu_us UInt64 COMMENT 'CPU time used, microseconds' CODEC(T64, ZSTD(1)),
    io_wait_us UInt64 COMMENT 'time waited for input and output, microseconds' CODEC(T64, ZSTD(1)),
    memory_max_bytes UInt64 COMMENT 'largest memory use of one run, bytes' CODEC(T64, ZSTD(1)),
    broker_mean_us Float64 COMMENT 'mean time of consumed Kafka records in the broker, microseconds' CODEC(ZSTD(1)),
    broker_max_us UInt64 COMMENT 'longest time of a consumed Kafka record in the broker, microseconds' CODEC(T64, ZSTD(1)),
    resources Array(Tuple(resource String, count UInt64, mean Float64, max Float64)) COMMENT 'samples per resource; the unit is in the resource''s name' CODEC(ZSTD(1)),
    sources Array(Tuple(topic String, partition UInt32, first_offset UInt64, last_offset UInt64)) COMMENT 'evidence: ranges of the events topic, ends included' CODEC(ZSTD(1)),
    source_topic LowCardinality(String) COMMENT 'topic of the message that this row came from',
    source_partition UInt32 COMMENT 'its partition' CODEC(T64, ZSTD(1)),
    source_offset UInt64 COMMENT 'its offset' CODEC(Delta, ZSTD(1)),
    inserted_at DateTime('UTC') COMMENT 'when its block was first announced by the sink, seconds UTC' CODEC(Delta, ZSTD(1)),
    -- "How is everything of this tenant in the last minutes": the sorting key would read every key's whole history.
    PROJECTION by_time
    (
        SELECT tenant, window_start, kind, chain, step, component, revision, events, completed, failed, error_ratio,
               mean_us, p50_us, p95_us, p99_us, max_us, violations, affected_executions
        ORDER BY tenant, window_start, kind, chain, step, component
    )
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMMDD(inserted_at)
ORDER BY (tenant, kind, chain, step, component, window_start)
TTL inserted_at + INTERVAL 90 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, deduplicate_merge_projection_mode = 'rebuild'
COMMENT 'Health windows of steps, chains and components (flowchain.health.v1), kept 90 days';
