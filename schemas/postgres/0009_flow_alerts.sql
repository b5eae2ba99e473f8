-- The newest revision of every incident and alert, and what people do about them.
CREATE TABLE flow_incidents (
    tenant text NOT NULL,
    id text NOT NULL,
    revision bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('open', 'resolved')),
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    title text NOT NULL,
    cause text NOT NULL,
    opened_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    resolved_at timestamptz,
    document jsonb NOT NULL,
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
COMMENT ON TABLE flow_incidents IS 'Incidents, the newest revision of each';
COMMENT ON COLUMN flow_incidents.tenant IS 'tenant';
COMMENT ON COLUMN flow_incidents.id IS 'id of the incident';
COMMENT ON COLUMN flow_incidents.revision IS 'revision; a lower one never replaces a higher one';
COMMENT ON COLUMN flow_incidents.status IS 'open or resolved';
COMMENT ON COLUMN flow_incidents.severity IS 'info, warning or critical';
COMMENT ON COLUMN flow_incidents.title IS 'what it is, in one line';
COMMENT ON COLUMN flow_incidents.cause IS 'component that is the most likely cause; empty: not known';
COMMENT ON COLUMN flow_incidents.opened_at IS 'event time of its opening';
COMMENT ON COLUMN flow_incidents.updated_at IS 'event time of this revision';
COMMENT ON COLUMN flow_incidents.resolved_at IS 'event time of its end; null: open';
COMMENT ON COLUMN flow_incidents.document IS 'the whole record';
COMMENT ON COLUMN flow_incidents.source_topic IS 'topic of the message this row came from';
COMMENT ON COLUMN flow_incidents.source_partition IS 'its partition';
COMMENT ON COLUMN flow_incidents.source_offset IS 'its offset';
COMMENT ON COLUMN flow_incidents.stored_at IS 'when the row was last written';
CREATE INDEX flow_incidents_recent ON flow_incidents (tenant, opened_at DESC);
COMMENT ON INDEX flow_incidents_recent IS 'latest incidents of a tenant';
CREATE INDEX flow_incidents_open ON flow_incidents (tenant, opened_at DESC) WHERE status = 'open';
COMMENT ON INDEX flow_incidents_open IS 'open incidents of a tenant';

CREATE TABLE flow_alerts (
    tenant text NOT NULL,
    id text NOT NULL,
    revision bigint NOT NULL,
    status text NOT NULL CHECK (status IN ('opened', 'updated', 'resolved', 'retracted')),
    severity text NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    title text NOT NULL,
    cause text NOT NULL,
    opened_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    resolved_at timestamptz,
    document jsonb NOT NULL,
    source_topic text NOT NULL,
    source_partition integer NOT NULL,
    source_offset bigint NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, id)
);
COMMENT ON TABLE flow_alerts IS 'Alerts, the newest revision of each';
COMMENT ON COLUMN flow_alerts.tenant IS 'tenant';
COMMENT ON COLUMN flow_alerts.id IS 'id of the alert';
COMMENT ON COLUMN flow_alerts.revision IS 'revision; a lower one never replaces a higher one';
COMMENT ON COLUMN flow_alerts.status IS 'opened, updated, resolved or retracted';
COMMENT ON COLUMN flow_alerts.severity IS 'info, warning or critical';
COMMENT ON COLUMN flow_alerts.title IS 'what it is, in one line';
COMMENT ON COLUMN flow_alerts.cause IS 'component that is the most likely cause; empty: not known';
COMMENT ON COLUMN flow_alerts.opened_at IS 'event time of its opening';
COMMENT ON COLUMN flow_alerts.updated_at IS 'event time of this revision';
COMMENT ON COLUMN flow_alerts.resolved_at IS 'event time of its end; null: open';
COMMENT ON COLUMN flow_alerts.document IS 'the whole record';
COMMENT ON COLUMN flow_alerts.source_topic IS 'topic of the message this row came from';
COMMENT ON COLUMN flow_alerts.source_partition IS 'its partition';
COMMENT ON COLUMN flow_alerts.source_offset IS 'its offset';
COMMENT ON COLUMN flow_alerts.stored_at IS 'when the row was last written';
CREATE INDEX flow_alerts_recent ON flow_alerts (tenant, opened_at DESC);
COMMENT ON INDEX flow_alerts_recent IS 'latest alerts of a tenant';
CREATE INDEX flow_alerts_open ON flow_alerts (tenant, opened_at DESC) WHERE status IN ('opened', 'updated');
COMMENT ON INDEX flow_alerts_open IS 'alerts of a tenant that are not over';
CREATE INDEX flow_alerts_by_cause ON flow_alerts (tenant, cause, opened_at DESC);
COMMENT ON INDEX flow_alerts_by_cause IS 'alerts that name a component';

CREATE TABLE alert_actions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    alert text NOT NULL,
    action text NOT NULL CHECK (action IN ('acknowledge', 'unacknowledge', 'feedback')),
    verdict text CHECK (verdict IN ('right', 'wrong', 'noise')),
    note text NOT NULL DEFAULT '',
    actor text NOT NULL,
    at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT alert_actions_verdict CHECK ((verdict IS NOT NULL) = (action = 'feedback'))
);
COMMENT ON TABLE alert_actions IS 'What people did about alerts, one row per act';
COMMENT ON COLUMN alert_actions.id IS 'order';
COMMENT ON COLUMN alert_actions.tenant IS 'tenant';
COMMENT ON COLUMN alert_actions.alert IS 'id of the alert';
COMMENT ON COLUMN alert_actions.action IS 'acknowledge, unacknowledge or feedback';
COMMENT ON COLUMN alert_actions.verdict IS 'of feedback: right, wrong or noise';
COMMENT ON COLUMN alert_actions.note IS 'for people, or empty';
COMMENT ON COLUMN alert_actions.actor IS 'who';
COMMENT ON COLUMN alert_actions.at IS 'when';
CREATE INDEX alert_actions_by_alert ON alert_actions (tenant, alert, id DESC);
COMMENT ON INDEX alert_actions_by_alert IS 'what was done about an alert, the latest first';

CREATE TABLE silences (
    id text PRIMARY KEY,
    tenant text NOT NULL,
    chain text NOT NULL DEFAULT '',
    component text NOT NULL DEFAULT '',
    severity text NOT NULL DEFAULT '' CHECK (severity IN ('', 'info', 'warning', 'critical')),
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    reason text NOT NULL,
    created_by text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT silences_end CHECK (ends_at > starts_at)
);
COMMENT ON TABLE silences IS 'Alerts that nobody is to be paged for, by what they are about; empty is any';
COMMENT ON COLUMN silences.id IS 'id of the silence';
COMMENT ON COLUMN silences.tenant IS 'tenant';
COMMENT ON COLUMN silences.chain IS 'chain, or empty';
COMMENT ON COLUMN silences.component IS 'component, or empty';
COMMENT ON COLUMN silences.severity IS 'severity, or empty';
COMMENT ON COLUMN silences.starts_at IS 'from then on';
COMMENT ON COLUMN silences.ends_at IS 'until then, excluded';
COMMENT ON COLUMN silences.reason IS 'why, for people';
COMMENT ON COLUMN silences.created_by IS 'who made it';
COMMENT ON COLUMN silences.created_at IS 'when it was made';
CREATE INDEX silences_in_force ON silences (tenant, ends_at);
COMMENT ON INDEX silences_in_force IS 'silences of a tenant that are not over';
