-- What is declared. A flow is what the registry stores, a chain is one kind of flow. Rows of one tenant only will be
-- visible to its sessions (row-level security comes with the registry), so tenant stands in every table and first in keys.
CREATE TABLE flow_definitions (
    tenant text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('chain', 'langgraph', 'ai_brain', 'chain_mapping', 'custom')),
    name text NOT NULL,
    version text NOT NULL,
    description text NOT NULL,
    definition jsonb NOT NULL,
    steps integer NOT NULL CHECK (steps >= 0),
    effective_from timestamptz NOT NULL,
    revision bigint NOT NULL,
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, kind, name, version)
);
COMMENT ON TABLE flow_definitions IS 'Declared flows, every version that was published';
COMMENT ON COLUMN flow_definitions.tenant IS 'whose flow it is; empty: every tenant''s';
COMMENT ON COLUMN flow_definitions.kind IS 'kind of flow; flowchain.definitions.v1 carries chains';
COMMENT ON COLUMN flow_definitions.name IS 'name of the flow, of the chain';
COMMENT ON COLUMN flow_definitions.version IS 'version as its author named it';
COMMENT ON COLUMN flow_definitions.description IS 'for people, or empty';
COMMENT ON COLUMN flow_definitions.definition IS 'the whole definition as it was published';
COMMENT ON COLUMN flow_definitions.steps IS 'number of declared steps';
COMMENT ON COLUMN flow_definitions.effective_from IS 'executions that began earlier are not held to it';
COMMENT ON COLUMN flow_definitions.revision IS 'offset of the message: a version published again replaces the earlier text';
COMMENT ON COLUMN flow_definitions.source_topic IS 'topic of the message this row came from';
COMMENT ON COLUMN flow_definitions.source_partition IS 'its partition';
COMMENT ON COLUMN flow_definitions.source_offset IS 'its offset';
COMMENT ON COLUMN flow_definitions.created_at IS 'when the version was first stored';
COMMENT ON COLUMN flow_definitions.updated_at IS 'when the row was last written';

CREATE TABLE flow_chains (
    tenant text NOT NULL,
    chain text NOT NULL,
    version text NOT NULL,
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
    revision bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, chain, version, position)
);
COMMENT ON TABLE flow_chains IS 'The declared steps of chains, one row per step of a version';
COMMENT ON COLUMN flow_chains.tenant IS 'whose chain it is; empty: every tenant''s';
COMMENT ON COLUMN flow_chains.chain IS 'name of the chain, as in flow_definitions.name with kind chain';
COMMENT ON COLUMN flow_chains.version IS 'version of the chain';
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
COMMENT ON COLUMN flow_chains.revision IS 'as in flow_definitions; rows of an older revision are removed with the newer one''s arrival';
COMMENT ON COLUMN flow_chains.updated_at IS 'when the row was last written';

CREATE INDEX flow_definitions_by_name ON flow_definitions (name, effective_from DESC);
COMMENT ON INDEX flow_definitions_by_name IS 'versions of a flow, the newest effective first';
CREATE INDEX flow_chains_by_component ON flow_chains (component, tenant, chain);
COMMENT ON INDEX flow_chains_by_component IS 'which chains use a component';
