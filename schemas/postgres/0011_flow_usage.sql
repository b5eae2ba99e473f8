-- What was used, per day: kept by triggers on flow_executions, in the transaction that changes them, so that it is exact
-- whatever is revised, moved to another day or written twice.
CREATE TABLE flow_usage_daily (
    tenant text NOT NULL,
    day date NOT NULL,
    user_id text NOT NULL,
    chain text NOT NULL,
    tier text NOT NULL,
    executions bigint NOT NULL,
    completed bigint NOT NULL,
    failed bigint NOT NULL,
    duration_sum_us bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, day, user_id, chain, tier)
);
COMMENT ON TABLE flow_usage_daily IS 'Executions per tenant, day, user, chain and tier; stays when retention removes the executions';
COMMENT ON COLUMN flow_usage_daily.tenant IS 'tenant';
COMMENT ON COLUMN flow_usage_daily.day IS 'as flow_executions.started_on';
COMMENT ON COLUMN flow_usage_daily.user_id IS 'whose executions, or empty';
COMMENT ON COLUMN flow_usage_daily.chain IS 'name of the chain';
COMMENT ON COLUMN flow_usage_daily.tier IS 'tier that the events named, or empty';
COMMENT ON COLUMN flow_usage_daily.executions IS 'executions';
COMMENT ON COLUMN flow_usage_daily.completed IS 'of them, ended well';
COMMENT ON COLUMN flow_usage_daily.failed IS 'of them, failed';
COMMENT ON COLUMN flow_usage_daily.duration_sum_us IS 'sum of their durations, microseconds';
COMMENT ON COLUMN flow_usage_daily.updated_at IS 'when one of its executions was last written';
CREATE INDEX flow_usage_daily_by_user ON flow_usage_daily (tenant, user_id, day) WHERE user_id <> '';
COMMENT ON INDEX flow_usage_daily_by_user IS 'what a user has used';

-- Whoever books waits for the others until they commit: two that book the same keys in different orders would block each
-- other for good. Deleting from a partition itself, as retention does, is not booked: what was used stays used.
CREATE FUNCTION book_usage() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    emptied bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(TG_TABLE_SCHEMA || '.flow_usage_daily', 0));
    IF TG_OP = 'INSERT' THEN
        INSERT INTO flow_usage_daily AS held (tenant, day, user_id, chain, tier, executions, completed, failed, duration_sum_us)
            SELECT tenant, started_on, user_id, chain, tier, count(*), count(*) FILTER (WHERE status = 'completed'),
                   count(*) FILTER (WHERE status = 'failed'), sum(duration_us)
            FROM added GROUP BY 1, 2, 3, 4, 5
            ON CONFLICT (tenant, day, user_id, chain, tier) DO UPDATE SET
                executions = held.executions + excluded.executions, completed = held.completed + excluded.completed,
                failed = held.failed + excluded.failed, duration_sum_us = held.duration_sum_us + excluded.duration_sum_us,
                updated_at = now();
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        WITH change AS (
            SELECT tenant, started_on, user_id, chain, tier, status, duration_us, 1 AS sign FROM added
            UNION ALL SELECT tenant, started_on, user_id, chain, tier, status, duration_us, -1 FROM removed
        ), booked AS (
            INSERT INTO flow_usage_daily AS held (tenant, day, user_id, chain, tier, executions, completed, failed, duration_sum_us)
            SELECT tenant, started_on, user_id, chain, tier, sum(sign), coalesce(sum(sign) FILTER (WHERE status = 'completed'), 0),
                   coalesce(sum(sign) FILTER (WHERE status = 'failed'), 0), sum(sign * duration_us)
            FROM change GROUP BY 1, 2, 3, 4, 5
            ON CONFLICT (tenant, day, user_id, chain, tier) DO UPDATE SET
                executions = held.executions + excluded.executions, completed = held.completed + excluded.completed,
                failed = held.failed + excluded.failed, duration_sum_us = held.duration_sum_us + excluded.duration_sum_us,
                updated_at = now()
            RETURNING executions
        )
        SELECT count(*) FILTER (WHERE executions = 0) INTO emptied FROM booked;
    ELSE
        WITH booked AS (
            INSERT INTO flow_usage_daily AS held (tenant, day, user_id, chain, tier, executions, completed, failed, duration_sum_us)
            SELECT tenant, started_on, user_id, chain, tier, -count(*), -count(*) FILTER (WHERE status = 'completed'),
                   -count(*) FILTER (WHERE status = 'failed'), -sum(duration_us)
            FROM removed GROUP BY 1, 2, 3, 4, 5
            ON CONFLICT (tenant, day, user_id, chain, tier) DO UPDATE SET
                executions = held.executions + excluded.executions, completed = held.completed + excluded.completed,
                failed = held.failed + excluded.failed, duration_sum_us = held.duration_sum_us + excluded.duration_sum_us,
                updated_at = now()
            RETURNING executions
        )
        SELECT count(*) FILTER (WHERE executions = 0) INTO emptied FROM booked;
    END IF;
    IF emptied > 0 THEN
        DELETE FROM flow_usage_daily AS held USING removed
        WHERE (held.tenant, held.day, held.user_id, held.chain, held.tier)
            = (removed.tenant, removed.started_on, removed.user_id, removed.chain, removed.tier) AND held.executions = 0;
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION book_usage() IS 'Keeps flow_usage_daily right, one statement at a time';
CREATE TRIGGER flow_executions_added AFTER INSERT ON flow_executions REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION book_usage();
COMMENT ON TRIGGER flow_executions_added ON flow_executions IS 'roll-up into flow_usage_daily';
CREATE TRIGGER flow_executions_changed AFTER UPDATE ON flow_executions REFERENCING OLD TABLE AS removed NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION book_usage();
COMMENT ON TRIGGER flow_executions_changed ON flow_executions IS 'roll-up into flow_usage_daily';
CREATE TRIGGER flow_executions_removed AFTER DELETE ON flow_executions REFERENCING OLD TABLE AS removed
    FOR EACH STATEMENT EXECUTE FUNCTION book_usage();
COMMENT ON TRIGGER flow_executions_removed ON flow_executions IS 'roll-up into flow_usage_daily';

INSERT INTO flow_usage_daily (tenant, day, user_id, chain, tier, executions, completed, failed, duration_sum_us)
    SELECT tenant, started_on, user_id, chain, tier, count(*), count(*) FILTER (WHERE status = 'completed'),
           count(*) FILTER (WHERE status = 'failed'), sum(duration_us)
    FROM flow_executions GROUP BY 1, 2, 3, 4, 5;
