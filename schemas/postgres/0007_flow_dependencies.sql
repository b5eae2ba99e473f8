-- Who depends on whom: as declared by definitions, and as observed; kept apart by provenance.
CREATE TABLE flow_dependencies (
    tenant text NOT NULL,
    provenance text NOT NULL CHECK (provenance IN ('declared', 'observed')),
    kind text NOT NULL CHECK (kind IN ('requires', 'step', 'call', 'flow', 'topic')),
    flow text NOT NULL DEFAULT '',
    source text NOT NULL,
    target text NOT NULL,
    topic text NOT NULL DEFAULT '',
    events bigint NOT NULL DEFAULT 0 CHECK (events >= 0),
    failed bigint NOT NULL DEFAULT 0 CHECK (failed >= 0),
    latency_mean_us double precision NOT NULL DEFAULT 0,
    revision bigint NOT NULL DEFAULT 0,
    first_seen_at timestamptz,
    last_seen_at timestamptz,
    source_topic text,
    source_partition integer,
    source_offset bigint,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, provenance, kind, flow, source, target, topic),
    CONSTRAINT flow_dependencies_provenance CHECK ((provenance = 'declared') = (kind IN ('requires', 'step'))),
    CONSTRAINT flow_dependencies_seen CHECK (provenance = 'declared' OR (first_seen_at IS NOT NULL AND last_seen_at IS NOT NULL))
);
COMMENT ON TABLE flow_dependencies IS 'Dependencies, declared and observed; history of the observed ones is in ClickHouse (chain_dependency_events)';
COMMENT ON COLUMN flow_dependencies.tenant IS 'whose dependency it is; empty: declared for every tenant';
COMMENT ON COLUMN flow_dependencies.provenance IS 'declared by a definition, or observed in what happened';
COMMENT ON COLUMN flow_dependencies.kind IS 'declared: requires (flow to flow), step (component to component); observed: call (source waits for target), flow (target works on what source left), topic (through Kafka)';
COMMENT ON COLUMN flow_dependencies.flow IS 'name of the flow that declares it, of the chain it was seen in; empty: outside of chains';
COMMENT ON COLUMN flow_dependencies.source IS 'component, or the flow that requires another';
COMMENT ON COLUMN flow_dependencies.target IS 'component, or the flow that is required';
COMMENT ON COLUMN flow_dependencies.topic IS 'Kafka topic between them, or empty';
COMMENT ON COLUMN flow_dependencies.events IS 'observed: how often in the newest window';
COMMENT ON COLUMN flow_dependencies.failed IS 'of them, the target failed';
COMMENT ON COLUMN flow_dependencies.latency_mean_us IS 'observed: mean latency in the newest window, microseconds';
COMMENT ON COLUMN flow_dependencies.revision IS 'declared: revision of the definition; observed: revision of the newest window';
COMMENT ON COLUMN flow_dependencies.first_seen_at IS 'observed: start of the first window it was seen in; null: declared';
COMMENT ON COLUMN flow_dependencies.last_seen_at IS 'observed: end of the newest window it was seen in; null: declared';
COMMENT ON COLUMN flow_dependencies.source_topic IS 'observed: topic of the message this row came from';
COMMENT ON COLUMN flow_dependencies.source_partition IS 'its partition';
COMMENT ON COLUMN flow_dependencies.source_offset IS 'its offset';
COMMENT ON COLUMN flow_dependencies.created_at IS 'when it was first stored';
COMMENT ON COLUMN flow_dependencies.updated_at IS 'when the row was last written';

CREATE INDEX flow_dependencies_by_source ON flow_dependencies (tenant, source, kind);
COMMENT ON INDEX flow_dependencies_by_source IS 'what a component or flow depends on';
CREATE INDEX flow_dependencies_by_target ON flow_dependencies (tenant, target, kind);
COMMENT ON INDEX flow_dependencies_by_target IS 'what depends on a component or flow';
CREATE INDEX flow_dependencies_by_flow ON flow_dependencies (flow, tenant) WHERE flow <> '';
COMMENT ON INDEX flow_dependencies_by_flow IS 'the graph of one flow';
CREATE INDEX flow_dependencies_requires ON flow_dependencies (source, target) WHERE kind = 'requires';
COMMENT ON INDEX flow_dependencies_requires IS 'the graph of required flows, which has no cycle';

-- What a tenant sees of declared requirements, its own and every tenant's, has no cycle. The lock is held until the
-- transaction ends, so of two sessions that would close a cycle together the second one sees what the first one did;
-- a session that looks at an older snapshot would not, and is refused.
CREATE FUNCTION refuse_cycle() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found text[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'required flows are declared in transactions at the level READ COMMITTED only' USING ERRCODE = '25001';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(TG_TABLE_SCHEMA || '.flow_dependencies requires', 0));
    -- From the new edge's end, level by level and each flow once per level, back to its beginning.
    WITH RECURSIVE sight (viewer) AS (
        SELECT NEW.tenant
        UNION
        SELECT tenant FROM flow_dependencies WHERE NEW.tenant = '' AND kind = 'requires'
    ), walk (viewer, node, path) AS (
        SELECT viewer, NEW.target, ARRAY[NEW.source, NEW.target] FROM sight
        UNION ALL
        SELECT * FROM (
            SELECT DISTINCT ON (w.viewer, d.target) w.viewer, d.target, w.path || d.target
            FROM walk w JOIN flow_dependencies d ON d.kind = 'requires' AND d.source = w.node AND d.tenant IN (w.viewer, '')
            WHERE w.node <> NEW.source AND NOT d.target = ANY (w.path[2:])
              AND (TG_OP = 'INSERT' OR (d.tenant, d.source, d.target, d.flow) <> (OLD.tenant, OLD.source, OLD.target, OLD.flow))
            ORDER BY w.viewer, d.target
        ) AS level
    )
    SELECT path INTO found FROM walk WHERE node = NEW.source LIMIT 1;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'required flows form a cycle: %', array_to_string(found, ' → ')
            USING ERRCODE = 'check_violation', CONSTRAINT = 'flow_dependencies_acyclic', SCHEMA = TG_TABLE_SCHEMA, TABLE = TG_TABLE_NAME;
    END IF;
    RETURN NEW;
END $$;
COMMENT ON FUNCTION refuse_cycle() IS 'Refuses (23514, constraint flow_dependencies_acyclic) a required flow that closes a cycle; the message names the path';
CREATE TRIGGER flow_dependencies_acyclic BEFORE INSERT OR UPDATE ON flow_dependencies FOR EACH ROW
    WHEN (NEW.kind = 'requires') EXECUTE FUNCTION refuse_cycle();
COMMENT ON TRIGGER flow_dependencies_acyclic ON flow_dependencies IS 'required flows have no cycle';

CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := now();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION touch() IS 'Keeps updated_at right, whoever changes a row';
CREATE TRIGGER flow_dependencies_touch BEFORE UPDATE ON flow_dependencies FOR EACH ROW EXECUTE FUNCTION touch();
COMMENT ON TRIGGER flow_dependencies_touch ON flow_dependencies IS 'updated_at';
