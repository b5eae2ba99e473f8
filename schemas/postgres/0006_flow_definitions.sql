-- PostgreSQL is the authority for definitions; flowchain.definitions.v1 is derived from it (registry_outbox). What a sink
-- had written from the topic becomes the revisions of each flow, in the order in which they were published.
CREATE TEMPORARY TABLE old_definitions ON COMMIT DROP AS
    SELECT *, row_number() OVER (PARTITION BY tenant, name ORDER BY flow_definitions.revision, effective_from, version)::integer AS number
    FROM flow_definitions;
CREATE TEMPORARY TABLE old_chains ON COMMIT DROP AS TABLE flow_chains;
DROP TABLE flow_chains;
DROP TABLE flow_definitions;

CREATE TABLE flow_definitions (
    tenant text NOT NULL,
    name text NOT NULL,
    revision integer NOT NULL CHECK (revision > 0),
    id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('chain', 'langgraph', 'ai_brain', 'chain_mapping', 'custom')),
    version text NOT NULL,
    description text NOT NULL,
    definition jsonb NOT NULL,
    steps integer NOT NULL CHECK (steps >= 0),
    effective_from timestamptz NOT NULL,
    deleted boolean NOT NULL DEFAULT false,
    author text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, name, revision)
);
COMMENT ON TABLE flow_definitions IS 'Declared flows, every revision; never changed, never removed';
COMMENT ON COLUMN flow_definitions.tenant IS 'whose flow it is; empty: every tenant''s';
COMMENT ON COLUMN flow_definitions.name IS 'name of the flow, of the chain';
COMMENT ON COLUMN flow_definitions.revision IS '1, 2, 3, … per flow; the highest is in force';
COMMENT ON COLUMN flow_definitions.id IS 'address of the content: sha256: and 32 hex digits of the canonical form''s hash';
COMMENT ON COLUMN flow_definitions.kind IS 'kind of flow';
COMMENT ON COLUMN flow_definitions.version IS 'version as its author named it';
COMMENT ON COLUMN flow_definitions.description IS 'for people, or empty';
COMMENT ON COLUMN flow_definitions.definition IS 'the whole definition in its canonical form';
COMMENT ON COLUMN flow_definitions.steps IS 'number of declared steps';
COMMENT ON COLUMN flow_definitions.effective_from IS 'executions that began earlier are not held to it';
COMMENT ON COLUMN flow_definitions.deleted IS 'the flow was deleted with this revision';
COMMENT ON COLUMN flow_definitions.author IS 'who made the revision; empty: it came from the topic, before the registry';
COMMENT ON COLUMN flow_definitions.created_at IS 'when the revision was made';

CREATE TABLE flow_chains (
    tenant text NOT NULL,
    chain text NOT NULL,
    revision integer NOT NULL,
    position integer NOT NULL CHECK (position >= 0),
    step text NOT NULL,
    component text NOT NULL,
    after_steps text[],
    expected_duration_us bigint,
    deadline_us bigint,
    optional boolean NOT NULL,
    repeated boolean NOT NULL,
    input_type text,
    output_type text,
    PRIMARY KEY (tenant, chain, revision, position),
    FOREIGN KEY (tenant, chain, revision) REFERENCES flow_definitions (tenant, name, revision) DEFERRABLE INITIALLY DEFERRED
);
COMMENT ON TABLE flow_chains IS 'The declared steps of flows, one row per step of a revision';
COMMENT ON COLUMN flow_chains.tenant IS 'whose chain it is; empty: every tenant''s';
COMMENT ON COLUMN flow_chains.chain IS 'name of the chain, as in flow_definitions.name';
COMMENT ON COLUMN flow_chains.revision IS 'as in flow_definitions';
COMMENT ON COLUMN flow_chains.position IS 'place of the step in the definition, from 0';
COMMENT ON COLUMN flow_chains.step IS 'name of the step';
COMMENT ON COLUMN flow_chains.component IS 'who runs it';
COMMENT ON COLUMN flow_chains.after_steps IS 'steps that must have ended before; null: the step before it in the list';
COMMENT ON COLUMN flow_chains.expected_duration_us IS 'longer is step.slow, microseconds; null: not declared';
COMMENT ON COLUMN flow_chains.deadline_us IS 'at most so long after the steps before it ended, microseconds; null: not declared';
COMMENT ON COLUMN flow_chains.optional IS 'it may be left out';
COMMENT ON COLUMN flow_chains.repeated IS 'it may run several times in one execution';
COMMENT ON COLUMN flow_chains.input_type IS 'declared type of its input, if any';
COMMENT ON COLUMN flow_chains.output_type IS 'declared type of its output, if any';

CREATE INDEX flow_definitions_by_name ON flow_definitions (name, tenant, revision DESC);
COMMENT ON INDEX flow_definitions_by_name IS 'a flow of any tenant, the newest revision first';
CREATE INDEX flow_definitions_by_id ON flow_definitions (id);
COMMENT ON INDEX flow_definitions_by_id IS 'a revision by the address of its content';
CREATE INDEX flow_definitions_recent ON flow_definitions (tenant, created_at DESC);
COMMENT ON INDEX flow_definitions_recent IS 'what was changed last';
CREATE INDEX flow_chains_by_component ON flow_chains (component, tenant, chain);
COMMENT ON INDEX flow_chains_by_component IS 'which chains use a component';

INSERT INTO flow_definitions (tenant, name, revision, id, kind, version, description, definition, steps, effective_from, author, created_at)
    SELECT tenant, name, number, 'sha256:' || left(encode(sha256(convert_to(definition::text, 'UTF8')), 'hex'), 32), kind, version,
           description, definition, steps, effective_from, '', created_at
    FROM old_definitions;
INSERT INTO flow_chains
    SELECT c.tenant, c.chain, d.number, c.position, c.step, c.component, c.after_steps, c.expected_duration_us, c.deadline_us,
           c.optional, c.repeated, c.input_type, c.output_type
    FROM old_chains c JOIN old_definitions d ON (d.tenant, d.name, d.version, d.kind) = (c.tenant, c.chain, c.version, 'chain');
-- Its topic is not read any more: PostgreSQL writes it.
DELETE FROM sink_offsets WHERE sink = 'flow_definitions';
