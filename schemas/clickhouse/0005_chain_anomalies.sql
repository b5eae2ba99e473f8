-- Windows that differ from what their key has shown before; layout and reasons as in 0002.
CREATE TABLE IF NOT EXISTS chain_anomalies
(
    id String COMMENT 'anomaly id, 32 hex digits' CODEC(ZSTD(1)),
    revision UInt64 COMMENT 'version; the highest is right' CODEC(T64, ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'tenant',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    step LowCardinality(String) COMMENT 'step name, or empty',
    component LowCardinality(String) COMMENT 'component name, or empty',
    window_start DateTime64(6, 'UTC') COMMENT 'start of the unusual window, event time, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    window_end DateTime64(6, 'UTC') COMMENT 'its end, excluded, event time, microseconds UTC' CODEC(DoubleDelta, ZSTD(1)),
    score Float64 COMMENT 'combined verdict of the detectors, 0 to 1' CODEC(ZSTD(1)),
    threshold Float64 COMMENT 'score above which a window is an anomaly, 0 to 1' CODEC(ZSTD(1)),
    direction LowCardinality(String) COMMENT 'higher, lower or other: the leading feature against expectation',
    features Array(Tuple(feature String, detector String, value Float64, expected Nullable(Float64), contribution Float64)) COMMENT 'reasons, strongest first; contribution is a share of the score, units are in the feature''s name' CODEC(ZSTD(1)),
    learned_windows UInt64 COMMENT 'windows the detectors had learned from' CODEC(T64, ZSTD(1)),
    detectors_version LowCardinality(String) COMMENT 'version of the detectors',
    source_topic LowCardinality(String) COMMENT 'topic of the message that this row came from',
    source_partition UInt32 COMMENT 'its partition' CODEC(T64, ZSTD(1)),
    source_offset UInt64 COMMENT 'its offset' CODEC(Delta, ZSTD(1)),
    inserted_at DateTime('UTC') COMMENT 'when its block was first announced by the sink, seconds UTC' CODEC(Delta, ZSTD(1)),
    -- "What was unusual for this tenant at that time", over all chains.
    PROJECTION by_time
    (
        SELECT tenant, window_start, chain, step, component, id, revision, score, threshold, direction
        ORDER BY tenant, window_start
    )
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMM(inserted_at)
ORDER BY (tenant, chain, step, component, window_start, id)
TTL inserted_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 10000, deduplicate_merge_projection_mode = 'rebuild'
COMMENT 'Anomalies with their reasons (flowchain.anomalies.v1), kept 180 days';
