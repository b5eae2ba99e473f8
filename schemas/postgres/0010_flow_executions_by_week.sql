-- Executions by the week they began in: what is over is dropped as a whole week, and what is asked of the last days does
-- not walk through years. A partition comes into being with the first row for its week.
ALTER TABLE flow_executions RENAME TO flow_executions_before;
ALTER TABLE flow_executions_before DROP CONSTRAINT flow_executions_pkey;
DROP INDEX flow_executions_by_chain, flow_executions_by_user, flow_executions_unwell;

CREATE TABLE flow_executions (
    tenant text NOT NULL,
    execution text NOT NULL,
    started_on date NOT NULL,
    chain text NOT NULL,
    chain_version text NOT NULL,
    user_id text NOT NULL,
    tier text NOT NULL,
    component text NOT NULL,
    status text NOT NULL CONSTRAINT flow_executions_status CHECK (status IN ('open', 'completed', 'failed', 'incomplete', 'abandoned')),
    started_at timestamptz,
    last_event_at timestamptz,
    ended_at timestamptz,
    duration_us bigint NOT NULL CONSTRAINT flow_executions_duration CHECK (duration_us >= 0),
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
    PRIMARY KEY (tenant, execution, started_on),
    CONSTRAINT flow_executions_day CHECK
        (started_on = (coalesce(started_at, last_event_at, timestamptz '1970-01-01 00:00:00Z') AT TIME ZONE 'UTC')::date)
) PARTITION BY RANGE (started_on);
COMMENT ON TABLE flow_executions IS 'Executions of chains, the latest state of each; steps and history are in ClickHouse (chain_execution_traces)';
COMMENT ON COLUMN flow_executions.tenant IS 'tenant';
COMMENT ON COLUMN flow_executions.execution IS 'execution id as the services named it; used again more than a day later, it is another row, and the highest revision counts';
COMMENT ON COLUMN flow_executions.started_on IS 'UTC date of started_at, else of last_event_at, else 1970-01-01: chooses the partition';
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
COMMENT ON COLUMN flow_executions.created_at IS 'when the row was first stored';
COMMENT ON COLUMN flow_executions.updated_at IS 'when the row was last written';

CREATE INDEX flow_executions_by_chain ON flow_executions (tenant, chain, started_at DESC);
COMMENT ON INDEX flow_executions_by_chain IS 'latest executions of a chain';
CREATE INDEX flow_executions_by_user ON flow_executions (tenant, user_id, started_at DESC) WHERE user_id <> '';
COMMENT ON INDEX flow_executions_by_user IS 'latest executions of a user';
CREATE INDEX flow_executions_unwell ON flow_executions (tenant, started_at DESC) WHERE status <> 'completed';
COMMENT ON INDEX flow_executions_unwell IS 'latest executions of a tenant that did not end well';

-- One for everything that began before any of this ran: imports of old data, and executions without a time.
CREATE TABLE flow_executions_old PARTITION OF flow_executions FOR VALUES FROM (MINVALUE) TO ('2020-01-06');

-- A table is made beside and then attached, which locks out neither readers nor writers. Whoever comes second waits for
-- the first and finds it there.
CREATE FUNCTION ensure_flow_executions(days date[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    monday date;
    name text;
BEGIN
    FOR monday IN
        SELECT DISTINCT day - (extract(isodow FROM day)::integer - 1) FROM unnest(days) AS day WHERE day >= '2020-01-06' ORDER BY 1
    LOOP
        name := 'flow_executions_' || to_char(monday, 'IYYY"w"IW');
        IF to_regclass(name) IS NULL THEN
            PERFORM pg_advisory_xact_lock(hashtextextended(current_schema() || '.flow_executions partitions', 0));
            -- Asked of the table, not of to_regclass: that remembers its answer from before the lock.
            IF NOT EXISTS (SELECT FROM pg_class WHERE relname = name AND relnamespace = current_schema()::regnamespace) THEN
                EXECUTE format('CREATE TABLE %I (LIKE flow_executions INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name);
                EXECUTE format('ALTER TABLE flow_executions ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name, monday, monday + 7);
            END IF;
        END IF;
    END LOOP;
END $$;
COMMENT ON FUNCTION ensure_flow_executions(date[]) IS 'Make the partitions that rows of these days need';

SELECT ensure_flow_executions(array_agg(DISTINCT (coalesce(started_at, last_event_at, timestamptz '1970-01-01 00:00:00Z') AT TIME ZONE 'UTC')::date))
    FROM flow_executions_before;
INSERT INTO flow_executions
    SELECT tenant, execution, (coalesce(started_at, last_event_at, timestamptz '1970-01-01 00:00:00Z') AT TIME ZONE 'UTC')::date,
           chain, chain_version, user_id, tier, component, status, started_at, last_event_at, ended_at, duration_us, error_type,
           error_message, steps, steps_completed, steps_failed, steps_pending, missing_steps, violations, revision, source_topic,
           source_partition, source_offset, created_at, updated_at
    FROM flow_executions_before;
DROP TABLE flow_executions_before;
