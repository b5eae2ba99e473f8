-- Offsets live beside the rows they stand for and are written in the same transaction, so that a batch is there with its
-- offset or not at all.
CREATE TABLE sink_offsets (
    sink text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL CHECK (next_offset >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (sink, topic, partition)
);
COMMENT ON TABLE sink_offsets IS 'How far each PostgreSQL sink has come, per partition of its topic';
COMMENT ON COLUMN sink_offsets.sink IS 'name of the sink';
COMMENT ON COLUMN sink_offsets.topic IS 'physical topic name, prefix included';
COMMENT ON COLUMN sink_offsets.partition IS 'partition of the topic';
COMMENT ON COLUMN sink_offsets.next_offset IS 'first offset that is not stored yet';
COMMENT ON COLUMN sink_offsets.updated_at IS 'when it was last moved on';
