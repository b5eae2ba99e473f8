-- Tenants, what they may use, who may ask, and what must not be done twice.
CREATE TABLE tiers (
    name text PRIMARY KEY,
    max_chains integer CHECK (max_chains > 0),
    max_executions_per_day bigint CHECK (max_executions_per_day > 0),
    retention_days integer NOT NULL CHECK (retention_days > 0),
    requests_per_minute integer NOT NULL CHECK (requests_per_minute > 0),
    features text[] NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE tiers IS 'What a subscription holds';
COMMENT ON COLUMN tiers.name IS 'name of the tier';
COMMENT ON COLUMN tiers.max_chains IS 'flows that may be declared; null: no limit';
COMMENT ON COLUMN tiers.max_executions_per_day IS 'executions per day, UTC, before the limit is told; null: no limit';
COMMENT ON COLUMN tiers.retention_days IS 'what was stored longer ago is removed';
COMMENT ON COLUMN tiers.requests_per_minute IS 'requests to the API per key and minute';
COMMENT ON COLUMN tiers.features IS 'what else it opens';
INSERT INTO tiers (name, max_chains, max_executions_per_day, retention_days, requests_per_minute, features) VALUES
    ('free', 3, 1000, 7, 60, '{}'),
    ('pro', 50, 100000, 30, 600, '{graphs}'),
    ('enterprise', NULL, NULL, 365, 6000, '{graphs,slo}');

CREATE TABLE tenants (
    tenant text PRIMARY KEY CHECK (tenant NOT IN ('', '*')),
    display_name text NOT NULL,
    tier text NOT NULL REFERENCES tiers (name) ON UPDATE CASCADE,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE tenants IS 'Known tenants; events of others are taken as well, and kept as long as the longest retention says';
COMMENT ON COLUMN tenants.tenant IS 'tenant, as events name it';
COMMENT ON COLUMN tenants.display_name IS 'name for people';
COMMENT ON COLUMN tenants.tier IS 'what it has subscribed to';
COMMENT ON COLUMN tenants.created_at IS 'when it was added';
COMMENT ON COLUMN tenants.updated_at IS 'when the row was last written';
CREATE INDEX tenants_by_tier ON tenants (tier);
COMMENT ON INDEX tenants_by_tier IS 'tenants of a tier';

CREATE TABLE api_keys (
    id text PRIMARY KEY,
    tenant text NOT NULL CHECK (tenant <> ''),
    name text NOT NULL,
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'service')),
    hash bytea NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    last_used_at timestamptz,
    revoked_at timestamptz
);
COMMENT ON TABLE api_keys IS 'Keys of the API; only their hashes are known';
COMMENT ON COLUMN api_keys.id IS 'public part of the key';
COMMENT ON COLUMN api_keys.tenant IS 'whose key it is; *: all tenants''';
COMMENT ON COLUMN api_keys.name IS 'what it is for';
COMMENT ON COLUMN api_keys.role IS 'what it allows';
COMMENT ON COLUMN api_keys.hash IS 'hash of the key';
COMMENT ON COLUMN api_keys.created_by IS 'who made it';
COMMENT ON COLUMN api_keys.created_at IS 'when it was made';
COMMENT ON COLUMN api_keys.expires_at IS 'it is refused from then on; null: never';
COMMENT ON COLUMN api_keys.last_used_at IS 'when it was last used, roughly; null: never';
COMMENT ON COLUMN api_keys.revoked_at IS 'when it was taken back; null: it was not';
CREATE UNIQUE INDEX api_keys_by_hash ON api_keys (hash);
COMMENT ON INDEX api_keys_by_hash IS 'the key that a request shows';
CREATE INDEX api_keys_by_tenant ON api_keys (tenant, created_at DESC);
COMMENT ON INDEX api_keys_by_tenant IS 'keys of a tenant';

CREATE TABLE idempotency_keys (
    tenant text NOT NULL,
    actor text NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    status integer,
    headers jsonb,
    body bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, actor, key)
);
COMMENT ON TABLE idempotency_keys IS 'Answers to writes, given again to the same request';
COMMENT ON COLUMN idempotency_keys.tenant IS 'tenant';
COMMENT ON COLUMN idempotency_keys.actor IS 'who asked';
COMMENT ON COLUMN idempotency_keys.key IS 'the Idempotency-Key of the request';
COMMENT ON COLUMN idempotency_keys.request_hash IS 'hash of the request: another one under the same key is refused';
COMMENT ON COLUMN idempotency_keys.status IS 'HTTP status of the answer; null: it is being worked on';
COMMENT ON COLUMN idempotency_keys.headers IS 'headers of the answer';
COMMENT ON COLUMN idempotency_keys.body IS 'body of the answer, bytes';
COMMENT ON COLUMN idempotency_keys.created_at IS 'when the request came';
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);
COMMENT ON INDEX idempotency_keys_by_age IS 'those that retention removes';

CREATE TABLE registry_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    topic text NOT NULL,
    key bytea NOT NULL,
    value bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz
);
COMMENT ON TABLE registry_outbox IS 'What is to be published, written in the transaction of what it tells; relayed in the order of id';
COMMENT ON COLUMN registry_outbox.id IS 'order';
COMMENT ON COLUMN registry_outbox.tenant IS 'whose change it tells; empty: every tenant''s';
COMMENT ON COLUMN registry_outbox.topic IS 'name in the topic catalogue, without prefix';
COMMENT ON COLUMN registry_outbox.key IS 'Kafka key, bytes';
COMMENT ON COLUMN registry_outbox.value IS 'Kafka value, bytes; null: tombstone';
COMMENT ON COLUMN registry_outbox.created_at IS 'when it was written';
COMMENT ON COLUMN registry_outbox.published_at IS 'when the brokers had taken it; null: not yet';
CREATE INDEX registry_outbox_pending ON registry_outbox (id) WHERE published_at IS NULL;
COMMENT ON INDEX registry_outbox_pending IS 'what is still to be published, in order';
CREATE INDEX registry_outbox_published ON registry_outbox (published_at) WHERE published_at IS NOT NULL;
COMMENT ON INDEX registry_outbox_published IS 'those that retention removes';

CREATE TABLE flow_credentials (
    tenant text NOT NULL,
    flow text NOT NULL,
    name text NOT NULL,
    ciphertext bytea NOT NULL,
    key_id text NOT NULL,
    description text NOT NULL DEFAULT '',
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    rotated_at timestamptz,
    expires_at timestamptz,
    PRIMARY KEY (tenant, flow, name)
);
COMMENT ON TABLE flow_credentials IS 'Credentials of flows, encrypted (Fernet) with keys that are not in the database';
COMMENT ON COLUMN flow_credentials.tenant IS 'whose credential it is';
COMMENT ON COLUMN flow_credentials.flow IS 'flow that uses it';
COMMENT ON COLUMN flow_credentials.name IS 'name of the credential';
COMMENT ON COLUMN flow_credentials.ciphertext IS 'the encrypted value, bytes of a Fernet token';
COMMENT ON COLUMN flow_credentials.key_id IS 'which key encrypted it: the first digits of the key''s hash';
COMMENT ON COLUMN flow_credentials.description IS 'for people, or empty';
COMMENT ON COLUMN flow_credentials.created_by IS 'who stored it first';
COMMENT ON COLUMN flow_credentials.created_at IS 'when it was first stored';
COMMENT ON COLUMN flow_credentials.updated_at IS 'when the row was last written';
COMMENT ON COLUMN flow_credentials.rotated_at IS 'when it was last encrypted anew under another key; null: never';
COMMENT ON COLUMN flow_credentials.expires_at IS 'when it stops working, as its owner says; null: not known';
CREATE INDEX flow_credentials_by_key ON flow_credentials (key_id);
COMMENT ON INDEX flow_credentials_by_key IS 'what is still encrypted under an old key';
CREATE INDEX flow_credentials_by_expiry ON flow_credentials (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON INDEX flow_credentials_by_expiry IS 'credentials that expire soon';

CREATE TRIGGER tenants_touch BEFORE UPDATE ON tenants FOR EACH ROW EXECUTE FUNCTION touch();
COMMENT ON TRIGGER tenants_touch ON tenants IS 'updated_at';
CREATE TRIGGER flow_credentials_touch BEFORE UPDATE ON flow_credentials FOR EACH ROW EXECUTE FUNCTION touch();
COMMENT ON TRIGGER flow_credentials_touch ON flow_credentials IS 'updated_at';
