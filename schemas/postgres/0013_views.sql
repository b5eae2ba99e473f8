-- What is asked often. The views show what the session that asks may see (security_invoker).
CREATE VIEW flow_definitions_current WITH (security_invoker = true) AS
    SELECT * FROM (
        SELECT DISTINCT ON (tenant, name) * FROM flow_definitions ORDER BY tenant, name, revision DESC
    ) AS newest
    WHERE NOT deleted;
COMMENT ON VIEW flow_definitions_current IS 'The revision in force of every flow that is not deleted';

CREATE VIEW flow_health WITH (security_invoker = true) AS
    WITH judged AS (
        SELECT m.tenant, m.chain, m.window_start, m.window_end, m.completed, m.failed, m.error_ratio, m.p95_us, m.violations,
               coalesce((d.definition ->> 'error_budget_ratio')::double precision, 0.05) AS error_budget_ratio
        FROM flow_metrics m
        LEFT JOIN LATERAL (
            SELECT definition FROM flow_definitions_current c
            WHERE c.name = m.chain AND c.tenant IN (m.tenant, '') ORDER BY c.tenant DESC LIMIT 1
        ) AS d ON true
        WHERE m.kind = 'chain'
    )
    SELECT tenant, chain,
           CASE
               WHEN window_end < now() - interval '15 minutes' THEN 'unknown'
               WHEN error_ratio >= 0.5 THEN 'failing'
               WHEN error_ratio > error_budget_ratio OR violations <> '{}' THEN 'degraded'
               WHEN completed + failed = 0 THEN 'unknown'
               ELSE 'healthy'
           END AS status,
           error_ratio, error_budget_ratio, p95_us, violations, window_start, window_end
    FROM judged
    UNION ALL
    SELECT tenant, name, 'unknown', NULL, NULL, NULL, NULL, NULL, NULL
    FROM flow_definitions_current c
    WHERE tenant <> '' AND NOT EXISTS (SELECT FROM flow_metrics m WHERE m.tenant = c.tenant AND m.kind = 'chain' AND m.chain = c.name);
COMMENT ON VIEW flow_health IS 'Status per chain, from its newest window: unknown (none, older than 15 minutes, or nothing ended in it), failing (half or more failed), degraded (more failed than the definition''s error budget, 0.05 where it has none; or violations), healthy';

CREATE VIEW tenant_usage WITH (security_invoker = true) AS
    SELECT tenant, tier, day, sum(executions)::bigint AS executions, sum(completed)::bigint AS completed, sum(failed)::bigint AS failed,
           count(DISTINCT chain) AS chains, count(DISTINCT nullif(user_id, '')) AS users, sum(duration_sum_us)::bigint AS duration_sum_us
    FROM flow_usage_daily GROUP BY tenant, tier, day;
COMMENT ON VIEW tenant_usage IS 'Usage by tenant, tier and day';

CREATE FUNCTION user_chain_metrics(of_tenant text, of_user text) RETURNS TABLE (
    executions bigint, completed bigint, failed bigint, mean_duration_us double precision, success_ratio double precision, most_used_chains text[]
) LANGUAGE sql STABLE PARALLEL SAFE AS $$
    WITH used AS (
        SELECT u.chain, sum(u.executions) AS executions, sum(u.completed) AS completed, sum(u.failed) AS failed, sum(u.duration_sum_us) AS duration_us
        FROM flow_usage_daily u WHERE u.tenant = of_tenant AND u.user_id = of_user AND u.user_id <> '' GROUP BY u.chain
    )
    SELECT coalesce(sum(used.executions), 0)::bigint, coalesce(sum(used.completed), 0)::bigint, coalesce(sum(used.failed), 0)::bigint,
           (sum(used.duration_us) / nullif(sum(used.executions), 0))::double precision,
           (sum(used.completed) / nullif(sum(used.executions), 0))::double precision,
           coalesce((SELECT array_agg(chain ORDER BY most.executions DESC, chain)
                     FROM (SELECT used.chain, used.executions FROM used ORDER BY used.executions DESC, used.chain LIMIT 5) AS most), '{}')
    FROM used
$$;
COMMENT ON FUNCTION user_chain_metrics(text, text) IS 'What a user has run: always one row; without executions the mean duration (microseconds) and the success ratio are null, and no chain is used most';
