-- Who writes a topic partition: whoever resumes it claims it, and the highest claim counts. Not in sink_progress: that
-- keeps only the newest row per key, and a claim must not hide the block that the writer before announces meanwhile.
CREATE TABLE IF NOT EXISTS sink_claims
(
    sink LowCardinality(String) COMMENT 'name of the sink, as in sink_progress',
    topic LowCardinality(String) COMMENT 'physical topic name, prefix included',
    partition UInt32 COMMENT 'partition of the topic',
    claim UInt64 COMMENT 'the highest is the partition''s owner; a writer that finds a higher one than its own ends',
    written_at DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'wall clock of the server when this row came, milliseconds UTC'
)
ENGINE = ReplacingMergeTree(claim)
ORDER BY (sink, topic, partition)
COMMENT 'Claims of the ClickHouse sinks: which writer a topic partition belongs to';
