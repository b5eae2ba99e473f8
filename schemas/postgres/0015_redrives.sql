-- Dead letters that were sent again: the only act of people that changes no other table, so that the audit trail knows of it.
CREATE TABLE redrives (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    letters text[] NOT NULL,
    again boolean NOT NULL,
    actor text NOT NULL DEFAULT current_actor(),
    at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE redrives IS 'Dead letters of the events topic that somebody had sent again; written before they are sent';
COMMENT ON COLUMN redrives.id IS 'order';
COMMENT ON COLUMN redrives.letters IS 'partition:offset of each, in the topic of the dead letters';
COMMENT ON COLUMN redrives.again IS 'also those that had been sent again before';
COMMENT ON COLUMN redrives.actor IS 'who, as the session says';
COMMENT ON COLUMN redrives.at IS 'when';
CREATE TRIGGER redrives_audit AFTER INSERT ON redrives FOR EACH ROW EXECUTE FUNCTION audit('redrive', 'id', '');
COMMENT ON TRIGGER redrives_audit ON redrives IS 'audit trail';
COMMENT ON COLUMN audit_log.object_type IS 'flow, credential, tenant, tier, api_key, silence or redrive';

DO $$
DECLARE
    api CONSTANT text := current_schema() || '_api';
    everyone CONSTANT text := '((SELECT current_tenant()) = ''*'')';
BEGIN
    ALTER TABLE redrives ENABLE ROW LEVEL SECURITY;
    EXECUTE format('GRANT SELECT, INSERT (letters, again) ON redrives TO %I', api);
    EXECUTE format('CREATE POLICY administration ON redrives TO %I USING %s WITH CHECK %s', api, everyone, everyone);
    COMMENT ON POLICY administration ON redrives IS 'dead letters are everybody''s: sessions of all tenants only';
END $$;
