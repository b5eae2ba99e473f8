-- One row per finished execution and one per run of a step in it; layout and reasons as in 0002.
-- The sorting key holds identities only: start times may be corrected by late events, and a key that changes would keep
-- both versions. It answers "all of one execution" directly; time ranges of a chain go through the projection.
-- Of an execution that was finished again (higher revision) a step row never vanishes: steps are only added or corrected.
CREATE TABLE IF NOT EXISTS chain_execution_traces
(
    record_kind LowCardinality(String) COMMENT 'execution: the whole run of the chain; step: one run of a step in it',
    tenant LowCardinality(String) COMMENT 'tenant',
    chain LowCardinality(String) COMMENT 'chain name',
    chain_version LowCardinality(String) COMMENT 'version of the definition the service named, or empty',
    execution String COMMENT 'execution id' CODEC(ZSTD(1)),
    span String COMMENT 'id of this run of the step, unique in the execution; empty for record_kind execution' CODEC(ZSTD(1)),
    step LowCardinality(String) COMMENT 'step name; empty for record_kind execution',
    component LowCardinality(String) COMMENT 'who ran it',
    user String COMMENT 'whose execution it is, or empty' CODEC(ZSTD(1)),
    tier LowCardinality(String) COMMENT 'subscription tier of the tenant or user, or empty',
    status LowCardinality(String) COMMENT 'step: started, completed, failed, heard_of (only log statements told of it); execution: also open, incomplete (a declared step never came), abandoned (silence)',
    attempt UInt16 COMMENT 'attempt number of the step, 1 = first; 0 for record_kind execution' CODEC(ZSTD(1)),
    start_time DateTime64(6, 'UTC') COMMENT 'event time of its beginning, microseconds UTC; 1970-01-01 = unknown' CODEC(Delta, ZSTD(1)),
    end_time DateTime64(6, 'UTC') COMMENT 'event time of its end, microseconds UTC; 1970-01-01 = not seen' CODEC(Delta, ZSTD(1)),
    duration_us UInt64 COMMENT 'duration, microseconds' CODEC(T64, ZSTD(1)),
    error_type LowCardinality(String) COMMENT 'error class, or empty',
    error_message String COMMENT 'what the service said about the error, or empty' CODEC(ZSTD(3)),
    cpu_us UInt64 COMMENT 'CPU time used, microseconds' CODEC(T64, ZSTD(1)),
    memory_bytes UInt64 COMMENT 'memory used, bytes' CODEC(T64, ZSTD(1)),
    io_wait_us UInt64 COMMENT 'time waited for input and output, microseconds' CODEC(T64, ZSTD(1)),
    parents Array(Tuple(span String, execution String, component String)) COMMENT 'what caused the step; execution is set when it is another one' CODEC(ZSTD(1)),
    consumed_topic LowCardinality(String) COMMENT 'topic of the Kafka record the step worked on, or empty',
    consumed_partition UInt32 COMMENT 'its partition' CODEC(T64, ZSTD(1)),
    consumed_offset UInt64 COMMENT 'its offset' CODEC(Delta, ZSTD(1)),
    broker_us UInt64 COMMENT 'time of that record in the broker, microseconds' CODEC(T64, ZSTD(1)),
    logs Array(String) COMMENT 'distinct log statements, LEVEL template; empty for record_kind execution' CODEC(ZSTD(3)),
    steps UInt32 COMMENT 'step runs of the execution; 0 for record_kind step' CODEC(T64, ZSTD(1)),
    steps_failed UInt32 COMMENT 'of them, failed' CODEC(T64, ZSTD(1)),
    steps_pending UInt32 COMMENT 'of them, begun and not ended' CODEC(T64, ZSTD(1)),
    missing Array(String) COMMENT 'declared steps that never came; of an execution' CODEC(ZSTD(1)),
    violations UInt32 COMMENT 'violations reported for the execution; 0 for record_kind step' CODEC(T64, ZSTD(1)),
    revision UInt64 COMMENT 'version of the execution; the highest is right' CODEC(T64, ZSTD(1)),
    finished_watermark DateTime64(6, 'UTC') COMMENT 'event time the partition had reached when the execution was finished, microseconds UTC' CODEC(Delta, ZSTD(1)),
    event_topic LowCardinality(String) COMMENT 'evidence: topic of the events behind this row',
    event_partition UInt32 COMMENT 'their partition' CODEC(T64, ZSTD(1)),
    event_first_offset UInt64 COMMENT 'offset of the first of them' CODEC(Delta, ZSTD(1)),
    event_last_offset UInt64 COMMENT 'offset of the last of an execution; of a step the same as the first' CODEC(Delta, ZSTD(1)),
    source_topic LowCardinality(String) COMMENT 'topic of the message that this row came from',
    source_partition UInt32 COMMENT 'its partition' CODEC(T64, ZSTD(1)),
    source_offset UInt64 COMMENT 'its offset' CODEC(Delta, ZSTD(1)),
    source_row UInt32 COMMENT 'place of this row among those of the message, from 0' CODEC(Delta, ZSTD(1)),
    inserted_at DateTime('UTC') COMMENT 'when its block was first announced by the sink, seconds UTC' CODEC(Delta, ZSTD(1)),
    -- "Slowest steps, or executions, of a chain in this hour": record_kind execution has an empty step.
    PROJECTION by_chain
    (
        SELECT tenant, chain, record_kind, step, start_time, duration_us, status, component, execution, span, user, tier,
               error_type, attempt, revision
        ORDER BY tenant, chain, record_kind, step, start_time
    )
)
ENGINE = ReplacingMergeTree(revision)
PARTITION BY toYYYYMMDD(inserted_at)
ORDER BY (tenant, execution, chain, record_kind, span)
TTL inserted_at + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1, deduplicate_merge_projection_mode = 'rebuild'
COMMENT 'Finished executions and their steps (flowchain.traces.v1), kept 30 days';
