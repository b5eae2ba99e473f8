-- Everything of one execution: its own row first, then its steps as they began.
SELECT
    record_kind, chain, chain_version, execution, span, step, component, user, tier, status, attempt,
    toUnixTimestamp64Micro(start_time) AS start_unix_us, toUnixTimestamp64Micro(end_time) AS end_unix_us, duration_us,
    error_type, error_message, cpu_us, memory_bytes, io_wait_us, parents, consumed_topic, consumed_partition, consumed_offset,
    broker_us, logs, steps, steps_failed, steps_pending, missing, violations, revision,
    event_topic, event_partition, event_first_offset, event_last_offset
FROM chain_execution_traces FINAL
WHERE tenant = %(tenant)s AND execution = %(execution)s
ORDER BY record_kind = 'step', start_time, span
LIMIT 5000
