-- Who may see what. Migrations and sinks work as the owner of the tables; the API works as the role <schema>_api, which
-- owns nothing, may neither bypass row-level security nor become another role, and sees the rows of the tenant that its
-- session proves: the proof is an HMAC of the tenant under a key which the role cannot read. So not even arbitrary SQL in a
-- session of one tenant makes it a session of another.
--
-- Roles belong to the whole server: the name comes from the schema, and a role that is there already (made by an
-- administrator, or for the same schema of another database) is taken as it is. A password is the administrator's to set.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = current_schema() || '_api') THEN
        EXECUTE format('CREATE ROLE %I LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOBYPASSRLS', current_schema() || '_api');
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL; -- made at the same moment for a schema of another database
END $$;
DO $$
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), current_schema() || '_api');
END $$;

CREATE TABLE tenant_key (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    key bytea NOT NULL CHECK (length(key) = 32),
    inner_pad bytea NOT NULL CHECK (length(inner_pad) = 64),
    outer_pad bytea NOT NULL CHECK (length(outer_pad) = 64),
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tenant_key IS 'The key under which sessions prove their tenant; only the owner reads it';
COMMENT ON COLUMN tenant_key.one IS 'there is one row';
COMMENT ON COLUMN tenant_key.key IS 'random key of HMAC-SHA256';
COMMENT ON COLUMN tenant_key.inner_pad IS 'the key, filled up to 64 bytes, each XOR 0x36';
COMMENT ON COLUMN tenant_key.outer_pad IS 'the key, filled up to 64 bytes, each XOR 0x5c';
COMMENT ON COLUMN tenant_key.created_at IS 'when the key was made';

CREATE FUNCTION set_tenant_key(new_key bytea) RETURNS void LANGUAGE sql AS $$
    WITH padded AS (SELECT place, get_byte(new_key || decode(repeat('00', 32), 'hex'), place) AS byte FROM generate_series(0, 63) AS place),
    pads AS (
        SELECT decode(string_agg(lpad(to_hex(byte # 54), 2, '0'), '' ORDER BY place), 'hex') AS inner_pad,
               decode(string_agg(lpad(to_hex(byte # 92), 2, '0'), '' ORDER BY place), 'hex') AS outer_pad
        FROM padded
    )
    INSERT INTO tenant_key (key, inner_pad, outer_pad) SELECT new_key, inner_pad, outer_pad FROM pads
    ON CONFLICT (one) DO UPDATE SET key = excluded.key, inner_pad = excluded.inner_pad, outer_pad = excluded.outer_pad, created_at = now();
$$;
COMMENT ON FUNCTION set_tenant_key(bytea) IS 'Put a key of 32 bytes in force; sessions that prove themselves with an earlier one see nothing';
-- Two random UUIDs hold 244 random bits, from the server's strong source.
SELECT set_tenant_key(decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

-- pg_temp comes last in the search path of the owner's functions: otherwise a session could put a temporary table in
-- place of a real one.
CREATE FUNCTION current_tenant() RETURNS text LANGUAGE plpgsql STABLE PARALLEL SAFE SECURITY DEFINER AS $$
DECLARE
    claimed text := nullif(current_setting('flowchain.tenant', true), '');
    proof text := current_setting('flowchain.proof', true);
    expected bytea;
BEGIN
    SELECT sha256(outer_pad || sha256(inner_pad || convert_to(claimed, 'UTF8'))) INTO expected FROM tenant_key;
    -- Hashes of both are compared, so that how long it takes says nothing of where they differ.
    IF sha256(convert_to(encode(expected, 'hex'), 'UTF8')) = sha256(convert_to(proof, 'UTF8')) THEN
        RETURN claimed;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION current_tenant() IS 'The tenant that the session has proved; * is all of them, null is none';

CREATE FUNCTION current_actor() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT coalesce(nullif(current_setting('flowchain.actor', true), ''), session_user::text)
$$;
COMMENT ON FUNCTION current_actor() IS 'Who acts in this session, as it says; the database user where it says nothing';
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION current_tenant() SET search_path TO %I, pg_temp', current_schema());
END $$;
