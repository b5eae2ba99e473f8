-- What was done about an incident, every state of each action as it came.
SELECT id, revision, command, component, strategy, status, toUnixTimestamp64Micro(time) AS time_unix_us, breaker, detail
FROM chain_recovery_actions FINAL
WHERE tenant = %(tenant)s AND incident = %(incident)s
ORDER BY time, id, revision
LIMIT 1000
