-- What was done about incidents; layout and reasons as in 0002, but the revision is part of the sorting key:
-- planned, running and succeeded are a history worth keeping. The newest: ORDER BY revision DESC LIMIT 1 BY id.
CREATE TABLE IF NOT EXISTS chain_recovery_actions
(
    id String COMMENT 'action id, 32 hex digits' CODEC(ZSTD(1)),
    revision UInt64 COMMENT 'counts the states of the action' CODEC(T64, ZSTD(1)),
    command String COMMENT 'id of the command it carries out' CODEC(ZSTD(1)),
    incident String COMMENT 'id of the incident it is for' CODEC(ZSTD(1)),
    tenant LowCardinality(String) COMMENT 'tenant',
    chain LowCardinality(String) COMMENT 'chain name, or empty',
    component LowCardinality(String) COMMENT 'component it acts on',
    strategy LowCardinality(String) COMMENT 'restart, scale, redirect or failover',
    status LowCardinality(String) COMMENT 'planned, running, succeeded, failed, rolled_back or escalated',
    time DateTime64(6, 'UTC') COMMENT 'when it got this status, microseconds UTC' CODEC(Delta, ZSTD(1)),
    breaker LowCardinality(String) COMMENT 'circuit breaker of the component: closed, open or half_open',
    detail String COMMENT 'one sentence for a person, or empty' CODEC(ZSTD(3)),
    source_topic LowCardinality(String) COMMENT 'topic of the message that this row came from',
    source_partition UInt32 COMMENT 'its partition' CODEC(T64, ZSTD(1)),
    source_offset UInt64 COMMENT 'its offset' CODEC(Delta, ZSTD(1)),
    inserted_at DateTime('UTC') COMMENT 'when its block was first announced by the sink, seconds UTC' CODEC(Delta, ZSTD(1)),
    -- "What was done about this incident."
    PROJECTION by_incident
    (
        SELECT tenant, incident, time, id, revision, command, component, strategy, status, breaker, detail
        ORDER BY tenant, incident, time
    )
)
ENGINE = ReplacingMergeTree(source_offset)
PARTITION BY toYYYYMM(inserted_at)
ORDER BY (tenant, component, id, revision)
TTL inserted_at + INTERVAL 180 DAY
SETTINGS non_replicated_deduplication_window = 10000, deduplicate_merge_projection_mode = 'rebuild'
COMMENT 'Recovery actions, every state of each (flowchain.recovery.actions.v1), kept 180 days';
