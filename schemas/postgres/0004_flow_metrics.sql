-- The newest health window of every step, chain and component: what a status page asks. History is in ClickHouse
-- (chain_health_metrics, chain_health_hourly).
CREATE TABLE flow_metrics (
    tenant text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('step', 'chain', 'component')),
    chain text NOT NULL,
    step text NOT NULL,
    component text NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    revision bigint NOT NULL,
    events bigint NOT NULL,
    started bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    error_ratio double precision NOT NULL,
    throughput_per_s double precision NOT NULL,
    mean_us double precision NOT NULL,
    p50_us double precision NOT NULL,
    p95_us double precision NOT NULL,
    p99_us double precision NOT NULL,
    max_us bigint NOT NULL,
    violations jsonb NOT NULL,
    affected_executions bigint NOT NULL,
    cpu_us bigint NOT NULL,
    io_wait_us bigint NOT NULL,
    memory_max_bytes bigint NOT NULL,
    broker_mean_us double precision NOT NULL,
    resources jsonb NOT NULL,
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, kind, chain, step, component)
);
COMMENT ON TABLE flow_metrics IS 'The newest health window of every step, chain and component';
COMMENT ON COLUMN flow_metrics.tenant IS 'tenant';
COMMENT ON COLUMN flow_metrics.kind IS 'step, chain (step and component empty) or component (chain and step empty)';
COMMENT ON COLUMN flow_metrics.chain IS 'chain name, or empty';
COMMENT ON COLUMN flow_metrics.step IS 'step name, or empty';
COMMENT ON COLUMN flow_metrics.component IS 'component name, or empty';
COMMENT ON COLUMN flow_metrics.window_start IS 'start of the window, event time';
COMMENT ON COLUMN flow_metrics.window_end IS 'end of the window, excluded, event time';
COMMENT ON COLUMN flow_metrics.revision IS 'version of the window; an older window or version never replaces a newer one';
COMMENT ON COLUMN flow_metrics.events IS 'events in the window, duplicates left out';
COMMENT ON COLUMN flow_metrics.started IS 'runs begun';
COMMENT ON COLUMN flow_metrics.completed IS 'runs that ended well';
COMMENT ON COLUMN flow_metrics.failed IS 'runs that ended badly';
COMMENT ON COLUMN flow_metrics.error_ratio IS 'failed / (completed + failed), 0 without either; 0 to 1';
COMMENT ON COLUMN flow_metrics.throughput_per_s IS 'ended runs per second';
COMMENT ON COLUMN flow_metrics.mean_us IS 'mean duration, microseconds';
COMMENT ON COLUMN flow_metrics.p50_us IS 'median duration, microseconds';
COMMENT ON COLUMN flow_metrics.p95_us IS '95th percentile of the duration, microseconds';
COMMENT ON COLUMN flow_metrics.p99_us IS '99th percentile of the duration, microseconds';
COMMENT ON COLUMN flow_metrics.max_us IS 'longest duration, microseconds';
COMMENT ON COLUMN flow_metrics.violations IS 'count per violation type';
COMMENT ON COLUMN flow_metrics.affected_executions IS 'executions with a violation';
COMMENT ON COLUMN flow_metrics.cpu_us IS 'CPU time used, microseconds';
COMMENT ON COLUMN flow_metrics.io_wait_us IS 'time waited for input and output, microseconds';
COMMENT ON COLUMN flow_metrics.memory_max_bytes IS 'largest memory use of one run, bytes';
COMMENT ON COLUMN flow_metrics.broker_mean_us IS 'mean time of consumed Kafka records in the broker, microseconds';
COMMENT ON COLUMN flow_metrics.resources IS 'count, mean and max of the samples per resource; the unit is in its name';
COMMENT ON COLUMN flow_metrics.source_topic IS 'topic of the message this row came from';
COMMENT ON COLUMN flow_metrics.source_partition IS 'its partition';
COMMENT ON COLUMN flow_metrics.source_offset IS 'its offset';
COMMENT ON COLUMN flow_metrics.created_at IS 'when the key was first stored';
COMMENT ON COLUMN flow_metrics.updated_at IS 'when the row was last written';

CREATE INDEX flow_metrics_by_error_ratio ON flow_metrics (tenant, error_ratio DESC);
COMMENT ON INDEX flow_metrics_by_error_ratio IS 'what is worst for a tenant now';
CREATE INDEX flow_metrics_by_component ON flow_metrics (tenant, component);
COMMENT ON INDEX flow_metrics_by_component IS 'all that is known of a component, over its chains';
