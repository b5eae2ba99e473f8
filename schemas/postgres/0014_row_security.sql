-- What sessions of the API may do, and with whose rows. (SELECT current_tenant()) is evaluated once per query, not per row.
-- coalesce keeps the planner from taking the policy for a second condition beside the query's own on the same column: it
-- would expect a hundredth of the rows there are, and sort them instead of reading them in the order of an index.
DO $$
DECLARE
    api CONSTANT text := current_schema() || '_api';
    own CONSTANT text := 'coalesce(tenant = (SELECT current_tenant()) OR (SELECT current_tenant()) = ''*'', false)';
    everyone CONSTANT text := '((SELECT current_tenant()) = ''*'')';
    anyone CONSTANT text := '((SELECT current_tenant()) IS NOT NULL)';
    name text;
    rights text;
BEGIN
    -- They find their tables whatever the search path of the session whose statement calls them.
    FOREACH name IN ARRAY ARRAY['book_usage()', 'refuse_cycle()', 'ensure_flow_executions(date[])', 'user_chain_metrics(text, text)', 'set_tenant_key(bytea)']
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET search_path TO %I, pg_temp', name, current_schema());
    END LOOP;
    -- Nobody calls the owner's functions, nor makes triggers of them.
    EXECUTE format('REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA %I FROM PUBLIC', current_schema());
    EXECUTE format('GRANT EXECUTE ON FUNCTION current_tenant(), current_actor(), user_chain_metrics(text, text) TO %I', api);

    FOR name, rights IN VALUES
        ('flow_definitions', 'SELECT, INSERT'), ('flow_chains', 'SELECT, INSERT'), ('flow_dependencies', 'SELECT, INSERT, UPDATE, DELETE'),
        ('flow_executions', 'SELECT'), ('flow_metrics', 'SELECT'), ('flow_usage_daily', 'SELECT'), ('flow_alerts', 'SELECT'),
        ('flow_incidents', 'SELECT'), ('audit_log', 'SELECT'), ('flow_credentials', 'SELECT, INSERT, UPDATE, DELETE'),
        ('alert_actions', 'SELECT, INSERT'), ('silences', 'SELECT, INSERT, UPDATE, DELETE'),
        ('api_keys', 'SELECT, INSERT, UPDATE, DELETE'), ('idempotency_keys', 'SELECT, INSERT, UPDATE, DELETE'),
        ('registry_outbox', 'SELECT, INSERT, UPDATE (published_at)')
    LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('GRANT %s ON %I TO %I', rights, name, api);
        EXECUTE format('CREATE POLICY own_rows ON %I TO %I USING (%s) WITH CHECK (%s)', name, api, own, own);
        EXECUTE format('COMMENT ON POLICY own_rows ON %I IS %L', name, 'a session sees and changes the rows of its tenant');
    END LOOP;

    FOREACH name IN ARRAY ARRAY['flow_definitions', 'flow_chains', 'flow_dependencies'] LOOP
        EXECUTE format('CREATE POLICY common_rows ON %I FOR SELECT TO %I USING (tenant = '''' AND %s)', name, api, anyone);
        EXECUTE format('COMMENT ON POLICY common_rows ON %I IS %L', name, 'what is declared for every tenant is readable by all of them');
    END LOOP;

    -- What was observed is written by the sinks only.
    EXECUTE format('CREATE POLICY declared_insert ON flow_dependencies AS RESTRICTIVE FOR INSERT TO %I WITH CHECK (provenance = ''declared'')', api);
    EXECUTE format('CREATE POLICY declared_update ON flow_dependencies AS RESTRICTIVE FOR UPDATE TO %I USING (provenance = ''declared'')', api);
    EXECUTE format('CREATE POLICY declared_delete ON flow_dependencies AS RESTRICTIVE FOR DELETE TO %I USING (provenance = ''declared'')', api);
    FOREACH name IN ARRAY ARRAY['declared_insert', 'declared_update', 'declared_delete'] LOOP
        EXECUTE format('COMMENT ON POLICY %I ON flow_dependencies IS %L', name, 'what was observed is not changed by hand');
    END LOOP;

    -- A tenant publishes its own definitions only: not those of another tenant under its own name.
    EXECUTE format($policy$
        CREATE POLICY own_records ON registry_outbox AS RESTRICTIVE FOR INSERT TO %I WITH CHECK (%s OR (
            CASE WHEN topic = 'flowchain.definitions.v1' AND convert_from(key, 'UTF8') IS JSON ARRAY
                THEN convert_from(key, 'UTF8')::jsonb ->> 0 = tenant AND (value IS NULL OR convert_from(value, 'UTF8')::jsonb ->> 'tenant' = tenant)
                ELSE false
            END))$policy$, api, everyone);
    COMMENT ON POLICY own_records ON registry_outbox IS 'a tenant publishes its own definitions only';

    ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON tenants TO %I', api);
    EXECUTE format('CREATE POLICY own_rows ON tenants FOR SELECT TO %I USING (%s)', api, own);
    EXECUTE format('CREATE POLICY administration ON tenants TO %I USING %s WITH CHECK %s', api, everyone, everyone);
    COMMENT ON POLICY own_rows ON tenants IS 'a session sees its tenant';
    COMMENT ON POLICY administration ON tenants IS 'sessions of all tenants administer them';

    ALTER TABLE tiers ENABLE ROW LEVEL SECURITY;
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON tiers TO %I', api);
    EXECUTE format('CREATE POLICY everyone_reads ON tiers FOR SELECT TO %I USING %s', api, anyone);
    EXECUTE format('CREATE POLICY administration ON tiers TO %I USING %s WITH CHECK %s', api, everyone, everyone);
    COMMENT ON POLICY everyone_reads ON tiers IS 'what tiers hold is no secret';
    COMMENT ON POLICY administration ON tiers IS 'sessions of all tenants administer them';

    EXECUTE format('GRANT SELECT ON flow_definitions_current, flow_health, tenant_usage TO %I', api);
END $$;
