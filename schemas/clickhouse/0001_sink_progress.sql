-- How far each sink has come, per partition of its topic. A block of rows is announced ('begin') before it is inserted,
-- so that after a crash the same block is inserted again under the same deduplication token. The next block's 'begin'
-- implies the 'end' of the one before; 'end' itself is written when a sink falls idle or stops.
-- ReplacingMergeTree keeps one row per key; a reader takes the highest sequence itself and never waits for merges.
-- No TTL: a partition that has been silent for a year must not be read from its beginning again.
CREATE TABLE IF NOT EXISTS sink_progress
(
    sink LowCardinality(String) COMMENT 'name of the sink: the table it writes, unless one table has several writers',
    topic LowCardinality(String) COMMENT 'physical topic name, prefix included',
    partition UInt32 COMMENT 'partition of the topic',
    sequence UInt64 COMMENT 'claim * 2^32 + count of rows under this claim, the highest counts; every resume is a new claim',
    state Enum8('begin' = 1, 'end' = 2) COMMENT 'begin: the block may be there in part; end: it is there in full',
    first_offset Int64 COMMENT 'first offset of the block',
    last_offset Int64 COMMENT 'last offset of the block, included',
    inserted_at DateTime('UTC') COMMENT 'inserted_at of all rows of the block, also when it is inserted again; seconds UTC',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'wall clock of the server when this row came, milliseconds UTC'
)
ENGINE = ReplacingMergeTree(sequence)
ORDER BY (sink, topic, partition)
COMMENT 'Progress of the ClickHouse sinks: the last block announced per sink and topic partition';
