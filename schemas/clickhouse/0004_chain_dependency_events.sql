-- Observed edges of the dependency graph per window; layout and reasons as in 0002.
CREATE TABLE IF NOT EXISTS chain_dependency_events
(
    id String COMMENT 'id of edge and window, 32 hex digits' CODEC(ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'tenant',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    kind LowCardinality(String) COMMENT 'call: source waits for target; flow: target works on what source left; topic: a flow through Kafka',
    source LowCardinality(String) COMMENT 'component the edge begins at',
    target LowCardinality(String) COMMENT 'component the edge leads to',
    topic LowCardinality(String) COMMENT 'Kafka topic between them, or empty',
    window_start DateTime64(6, 'UTC') COMMENT 'start of the window, event time, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    window_end DateTime64(6, 'UTC') COMMENT 'end of the window, excluded, event time, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    revision UInt64 COMMENT '0 when the window closed, higher when late data changed it' CODEC(T64, ZSTD(1)),
    count UInt64 COMMENT 'times the edge was used' CODEC(T64, ZSTD(1)),
    failed UInt64 COMMENT 'of them, target failed' CODEC(T64, ZSTD(1)),
    latency_mean_us Float64 COMMENT 'mean from source''s end to target''s end, for a call target''s duration; microseconds' CODEC(ZSTD(1)),
    latency_max_us UInt64 COMMENT 'longest of them, microseconds' CODEC(T64, ZSTD(1)),
    source_topic LowCardinality(String) COMMENT 'topic of the message that this row came from',
    source_partition UInt32 COMMENT 'its partition' CODEC(T64, ZSTD(1)),
    source_offset UInt64 COMMENT 'its offset' CODEC(Delta, ZSTD(1)),
    inserted_at DateTime('UTC') COMMENT 'when its block was first announced by the sink, seconds UTC' CODEC(Delta, ZSTD(1)),
    -- "Who depends on this component": the sorting key begins at the other end of the edge.
    PROJECTION by_target
    (
        SELECT tenant, target, window_start, kind, source, topic, chain, revision, count, failed, latency_mean_us, latency_max_us
        ORDER BY tenant, target, window_start
    )
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(inserted_at)
ORDER BY (tenant, source, kind, target, topic, chain, window_start)
TTL inserted_at + INTERVAL 60 DAY
SETTINGS non_replicated_deduplication_window = 10000, deduplicate_merge_projection_mode = 'rebuild'
COMMENT 'Observed dependencies per window (flowchain.dependencies.v1), kept 60 days';
