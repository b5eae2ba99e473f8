-- The latest state of each finished execution; its steps and their history are in ClickHouse (chain_execution_traces).
CREATE TABLE flow_executions (
    tenant text NOT NULL,
    execution text NOT NULL,
    chain text NOT NULL,
    chain_version text NOT NULL,
    user_id text NOT NULL,
    tier text NOT NULL,
    component text NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'completed', 'failed', 'incomplete', 'abandoned')),
    started_at timestamptz,
    last_event_at timestamptz,
    ended_at timestamptz,
    duration_us bigint NOT NULL CHECK (duration_us >= 0),
    error_type text NOT NULL,
    error_message text NOT NULL,
    steps integer NOT NULL,
    steps_completed integer NOT NULL,
    steps_failed integer NOT NULL,
    steps_pending integer NOT NULL,
    missing_steps text[] NOT NULL,
    violations integer NOT NULL,
    revision bigint NOT NULL,
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, execution)
);
COMMENT ON TABLE flow_executions IS 'Executions of chains, the latest state of each';
COMMENT ON COLUMN flow_executions.tenant IS 'tenant';
COMMENT ON COLUMN flow_executions.execution IS 'execution id as the services named it';
COMMENT ON COLUMN flow_executions.chain IS 'name of the chain';
COMMENT ON COLUMN flow_executions.chain_version IS 'version the services named, or empty';
COMMENT ON COLUMN flow_executions.user_id IS 'whose execution it is, or empty';
COMMENT ON COLUMN flow_executions.tier IS 'subscription tier of the tenant or user, or empty';
COMMENT ON COLUMN flow_executions.component IS 'who began it, or empty';
COMMENT ON COLUMN flow_executions.status IS 'completed, failed, incomplete (a declared step never came), abandoned (silence); open while it runs';
COMMENT ON COLUMN flow_executions.started_at IS 'event time of its beginning; null: unknown';
COMMENT ON COLUMN flow_executions.last_event_at IS 'event time of its last event; null: unknown';
COMMENT ON COLUMN flow_executions.ended_at IS 'event time of its end; null: no end was seen';
COMMENT ON COLUMN flow_executions.duration_us IS 'duration, microseconds; 0: unknown';
COMMENT ON COLUMN flow_executions.error_type IS 'error class, or empty';
COMMENT ON COLUMN flow_executions.error_message IS 'what the service said about the error, or empty';
COMMENT ON COLUMN flow_executions.steps IS 'step runs seen';
COMMENT ON COLUMN flow_executions.steps_completed IS 'of them, ended well';
COMMENT ON COLUMN flow_executions.steps_failed IS 'of them, failed';
COMMENT ON COLUMN flow_executions.steps_pending IS 'of them, begun and not ended';
COMMENT ON COLUMN flow_executions.missing_steps IS 'declared steps that never came';
COMMENT ON COLUMN flow_executions.violations IS 'violations reported for it';
COMMENT ON COLUMN flow_executions.revision IS 'version of the row; a lower one never replaces a higher one';
COMMENT ON COLUMN flow_executions.source_topic IS 'topic of the message this row came from';
COMMENT ON COLUMN flow_executions.source_partition IS 'its partition';
COMMENT ON COLUMN flow_executions.source_offset IS 'its offset';
COMMENT ON COLUMN flow_executions.created_at IS 'when the execution was first stored';
COMMENT ON COLUMN flow_executions.updated_at IS 'when the row was last written';

CREATE INDEX flow_executions_by_chain ON flow_executions (tenant, chain, started_at DESC);
COMMENT ON INDEX flow_executions_by_chain IS 'latest executions of a chain';
CREATE INDEX flow_executions_by_user ON flow_executions (tenant, user_id, started_at DESC) WHERE user_id <> '';
COMMENT ON INDEX flow_executions_by_user IS 'latest executions of a user';
CREATE INDEX flow_executions_unwell ON flow_executions (tenant, started_at DESC) WHERE status <> 'completed';
COMMENT ON INDEX flow_executions_unwell IS 'latest executions of a tenant that did not end well';
