-- Who changed what. Written by triggers with the owner's rights; sessions of the API can read it and nothing else.
CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL CHECK (action IN ('insert', 'update', 'delete')),
    object_type text NOT NULL,
    object_id text NOT NULL,
    before jsonb,
    after jsonb
);
COMMENT ON TABLE audit_log IS 'Every change of what people declare and decide; only ever added to';
COMMENT ON COLUMN audit_log.id IS 'order';
COMMENT ON COLUMN audit_log.tenant IS 'whose object was changed; empty: every tenant''s; *: no tenant''s';
COMMENT ON COLUMN audit_log.at IS 'when';
COMMENT ON COLUMN audit_log.actor IS 'who, as the session says; the database user where it says nothing';
COMMENT ON COLUMN audit_log.action IS 'insert, update or delete';
COMMENT ON COLUMN audit_log.object_type IS 'flow, credential, tenant, tier, api_key or silence';
COMMENT ON COLUMN audit_log.object_id IS 'which one';
COMMENT ON COLUMN audit_log.before IS 'the row before, without secrets; null: there was none';
COMMENT ON COLUMN audit_log.after IS 'the row after, without secrets; null: there is none';
CREATE INDEX audit_log_by_object ON audit_log (tenant, object_type, object_id, id DESC);
COMMENT ON INDEX audit_log_by_object IS 'history of an object';
CREATE INDEX audit_log_recent ON audit_log (tenant, id DESC);
COMMENT ON INDEX audit_log_recent IS 'what was changed last';

CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    hidden text[] := string_to_array(TG_ARGV[2], ',');
    unimportant CONSTANT text[] := '{updated_at,last_used_at}';
    was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) END;
    becomes jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) END;
BEGIN
    IF was - unimportant = becomes - unimportant THEN
        RETURN NULL;
    END IF;
    INSERT INTO audit_log (tenant, actor, action, object_type, object_id, before, after)
    SELECT coalesce(one ->> 'tenant', '*'), current_actor(), lower(TG_OP), TG_ARGV[0],
           (SELECT string_agg(one ->> part, '/' ORDER BY place) FROM unnest(string_to_array(TG_ARGV[1], ',')) WITH ORDINALITY AS id (part, place)),
           was - hidden, becomes - hidden
    FROM coalesce(becomes, was) AS one;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION audit() IS 'Writes audit_log; arguments: object type, columns of its id, columns that hold secrets';
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION audit() SET search_path TO %I, pg_temp', current_schema());
END $$;

CREATE TRIGGER flow_definitions_audit AFTER INSERT OR UPDATE OR DELETE ON flow_definitions
    FOR EACH ROW EXECUTE FUNCTION audit('flow', 'name', '');
COMMENT ON TRIGGER flow_definitions_audit ON flow_definitions IS 'audit trail';
CREATE TRIGGER flow_credentials_audit AFTER INSERT OR UPDATE OR DELETE ON flow_credentials
    FOR EACH ROW EXECUTE FUNCTION audit('credential', 'flow,name', 'ciphertext');
COMMENT ON TRIGGER flow_credentials_audit ON flow_credentials IS 'audit trail, without the value';
CREATE TRIGGER tenants_audit AFTER INSERT OR UPDATE OR DELETE ON tenants
    FOR EACH ROW EXECUTE FUNCTION audit('tenant', 'tenant', '');
COMMENT ON TRIGGER tenants_audit ON tenants IS 'audit trail';
CREATE TRIGGER tiers_audit AFTER INSERT OR UPDATE OR DELETE ON tiers
    FOR EACH ROW EXECUTE FUNCTION audit('tier', 'name', '');
COMMENT ON TRIGGER tiers_audit ON tiers IS 'audit trail';
CREATE TRIGGER api_keys_audit AFTER INSERT OR UPDATE OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION audit('api_key', 'id', 'hash');
COMMENT ON TRIGGER api_keys_audit ON api_keys IS 'audit trail, without the hash';
CREATE TRIGGER silences_audit AFTER INSERT OR UPDATE OR DELETE ON silences
    FOR EACH ROW EXECUTE FUNCTION audit('silence', 'id', '');
COMMENT ON TRIGGER silences_audit ON silences IS 'audit trail';
