"""Every setting, declared once: name, type, default, sentence. Environment variables are `FLOWCHAIN_` + the name.

A profile (`FLOWCHAIN_PROFILE`) only changes defaults; whatever is set explicitly wins.
"""

import logging
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, FilePath, SecretStr, model_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

from schemas.tenants import TierName
from streams.limits import Limits

PROFILES: dict[str, dict[str, object]] = {
    "development": {},
    "staging": {"replication_factor": 3, "log_format": "json"},
    "production": {"replication_factor": 3, "log_format": "json", "source_partitions": 12, "analysis_partitions": 12},
}


class Settings(BaseSettings):
    """Typed settings of all processes."""

    model_config = SettingsConfigDict(env_prefix="FLOWCHAIN_", env_file=".env", extra="ignore", frozen=True)

    profile: Literal["development", "staging", "production"] = Field("development", description="defaults to start from")

    # Kafka
    bootstrap_servers: str = Field("127.0.0.1:9092", description="Kafka brokers, host:port separated by commas")
    topic_prefix: str = Field("", max_length=64, pattern=r"^[a-zA-Z0-9.-]*$", description="put before every topic and group name")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field("PLAINTEXT", description="of the brokers")
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(None, description="with SASL_*")
    sasl_username: str | None = Field(None, description="with SASL_*")
    sasl_password: SecretStr | None = Field(None, description="with SASL_*")
    ssl_ca_location: FilePath | None = Field(None, description="CA certificate file; the system's where left out")
    ssl_certificate_location: FilePath | None = Field(None, description="client certificate file, for mutual TLS")
    ssl_key_location: FilePath | None = Field(None, description="client key file, for mutual TLS")
    source_partitions: int = Field(4, ge=1, le=1024, description="of the events topic, when it is created")
    analysis_partitions: int = Field(4, ge=1, le=256, description="of the topics keyed by tenant, when they are created")
    replication_factor: int = Field(1, ge=1, le=7, description="of topics, when they are created")
    session_timeout_s: float = Field(20.0, ge=1, le=300, description="a dead worker's partitions move after so long")

    # Databases
    postgres_dsn: SecretStr = Field(SecretStr("postgresql://postgres@127.0.0.1:5432/postgres"), description="PostgreSQL")
    postgres_schema: str = Field("flowchain", pattern=r"^[a-z_][a-z0-9_]*$", description="schema of our tables")
    api_postgres_dsn: SecretStr | None = Field(None, description="PostgreSQL as the API's role; postgres_dsn with the user <schema>_api where left out")
    api_connections: int = Field(16, ge=1, le=1_000, description="connections of a process of the API to PostgreSQL")
    api_key_trust_s: float = Field(1.0, ge=0, le=60, description="a key that was valid is not looked up again for so long; a process learns of a revocation after it")
    api_statement_timeout_s: float = Field(10.0, ge=0.1, le=3600, description="a statement of the API is ended after so long")
    tenant_key: SecretStr | None = Field(None, description="64 hex digits that prove tenants to PostgreSQL; read with postgres_dsn where left out")
    credential_keys: SecretStr | None = Field(None, description="Fernet keys of stored credentials, separated by commas; the first one encrypts")
    clickhouse_dsn: SecretStr = Field(SecretStr("clickhouse://default@127.0.0.1:9000/default"), description="ClickHouse, native protocol")
    clickhouse_database: str = Field("flowchain", pattern=r"^[a-z_][a-z0-9_]*$", description="database of our tables")

    # Event time
    window_s: float = Field(10.0, ge=0.1, le=3600, description="length of a health window")
    lateness_s: float = Field(2.0, ge=0, le=3600, description="windows close, and deadlines count, this much behind the watermark")
    grace_s: float = Field(300.0, ge=0, le=86400, description="older events are dead-lettered, younger ones revise their window")
    future_s: float = Field(10.0, ge=0, le=86400, description="events further ahead of the broker's clock are dead-lettered")
    idle_s: float = Field(60.0, ge=0.1, le=86400, description="an execution silent for so long is closed as abandoned")
    linger_s: float = Field(30.0, ge=0, le=3600, description="a finished execution is remembered so long for duplicates and late events")

    # Ingest
    commit_interval_s: float = Field(0.1, ge=0.01, le=10, description="length of a transaction of ingest")
    commit_events: int = Field(50_000, ge=1, description="a transaction ends early after so many records")
    tick_idle_s: float = Field(0.5, ge=0.05, le=60, description="an idle partition gets a clock.tick this often")
    max_open: int = Field(200_000, ge=1, description="open executions per partition; beyond it the oldest is closed as abandoned")
    max_finished: int = Field(200_000, ge=1, description="remembered executions per partition; beyond it the oldest is forgotten")
    max_steps: int = Field(2_000, ge=1, le=2_000, description="steps tracked per execution; further ones are only counted")
    max_evidence: int = Field(500_000, ge=0, le=500_000, description="characters of logs, error messages and further parents kept per execution")
    max_series: int = Field(50_000, ge=1, description="distinct steps of chains per partition; further ones are booked under ~overflow; as many edges")
    max_slices: int = Field(100_000, ge=1, description="slices of event time that wait for slower partitions; beyond it the two oldest become one")
    max_chains: int = Field(10_000, ge=1, description="chains whose typical duration is known, for the progress of executions")
    max_definitions: int = Field(10_000, ge=1, description="chain definitions in force; beyond it those with the last names are not")
    dead_letter_ratio: float = Field(0.5, gt=0, le=1, description="a worker stops when more of its last records were refused")
    dead_letter_window: int = Field(10_000, ge=100, description="how many records the ratio looks at")

    # Intake
    intake_host: str = Field("127.0.0.1", description="where intake takes OTLP")
    intake_http_port: int = Field(4318, ge=0, le=65535, description="port of OTLP over HTTP; 0 = any free one, told in the log")
    intake_grpc_port: int = Field(4317, ge=0, le=65535, description="port of OTLP over gRPC; 0 = any free one, told in the log")
    intake_body_bytes: int = Field(16_777_216, ge=1024, description="longest request of OTLP that is taken, after decompression")
    intake_requests: int = Field(32, ge=1, description="requests of OTLP worked on at the same time; further ones are told to come back")
    intake_spans_topic: str = Field("otlp_spans", max_length=249, pattern=r"^[a-zA-Z0-9._-]*$", description="topic that the Collector's Kafka exporter writes; without topic_prefix; empty: none")
    intake_mapping: FilePath | None = Field(None, description="mapping file of topics whose records are no events of ours (docs/intake.md)")
    intake_tenant_attribute: str = Field("tenant.id", min_length=1, description="attribute of a resource, else of a span, that holds the tenant")
    intake_hold_s: float = Field(6.0, ge=0, le=300, description="spans wait so long for the root of their trace, which names the chain; SDKs of OpenTelemetry send every 5 s")
    intake_linger_s: float = Field(30.0, ge=0, le=300, description="a trace is forgotten when nothing came of it for so long")
    intake_max_traces: int = Field(200_000, ge=1, description="traces remembered per partition; beyond it the one silent for longest is told as it is, and forgotten")
    intake_max_producers: int = Field(200_000, ge=1, description="spans of producers remembered per process, for links of consumers; beyond it the first is forgotten")

    # Analysis and sinks
    max_detectors: int = Field(5_000, ge=1, description="keys that detectors follow per analysis partition; further ones are not judged")
    max_tenants: int = Field(1_000, ge=1, description="tenants analysed per partition; beyond it those not seen for longest are forgotten")
    max_contexts: int = Field(2_000, ge=1, description="steps of chains per tenant that root causes are looked for in")
    max_graph_edges: int = Field(2_000, ge=1, description="dependencies remembered per tenant; beyond it the oldest are forgotten")
    max_incidents: int = Field(20, ge=1, description="open incidents per tenant; further trouble joins the youngest")
    max_alerts: int = Field(10_000, ge=1, description="alerts remembered per analysis partition; beyond it the oldest that are over are forgotten")
    max_slos: int = Field(10_000, ge=1, description="chains held to an objective per analysis partition; further ones are not, until others are silent")
    max_tenant_records: int = Field(10_000, ge=1, description="tenants whose tier is known; beyond it those with the last names have the default tier")
    max_usage_chains: int = Field(10_000, ge=1, description="chains of a tenant told apart per day, for its limit; further ones are not told apart")
    slo_objective: float | None = Field(None, gt=0, lt=1, description="share of good executions of chains that declare no objective; none where left out")
    slo_window_days: int = Field(30, ge=1, le=366, description="days that the error budget of such an objective is for")
    default_tier: TierName = Field("enterprise", description="of tenants that are not on flowchain.tenants.v1")
    settle_interval_s: float = Field(1.0, ge=0.05, le=60, description="analysis saves its state and acknowledges this often")
    anomaly_warmup_windows: int = Field(30, ge=2, description="windows a detector learns from before it may speak")
    anomaly_hold_s: float = Field(3600.0, ge=0, description="a detector speaks again within this only about something stronger")
    incident_quiet_s: float = Field(30.0, ge=1, description="an incident without news for so long is resolved")
    sink_rows: int = Field(50_000, ge=1, description="a sink writes a block after so many rows")
    sink_interval_s: float = Field(1.0, ge=0.05, le=60, description="or after so long")

    # Processes
    worker_id: str = Field(
        "", max_length=64, pattern=r"^[a-zA-Z0-9._-]*$",
        description="name of this process among its kind, unique and kept over restarts: it ends its predecessor's transaction at once, "
        "and an ingest worker has its partitions back at once; those of one that does not come back move after session_timeout_s",
    )  # fmt: skip
    log_format: Literal["console", "json"] = Field("console", description="of the log lines on standard error")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least severe level that is logged")
    http_requests: int = Field(32, ge=1, description="answered at the same time; further ones get status 503 at once")
    read_ahead: int = Field(1_000, ge=1, description="records that analysis and sinks hold per topic before they are looked at")
    http_host: str = Field("127.0.0.1", description="where /metrics, /healthz and /readyz are served")
    http_port: int = Field(0, ge=0, le=65535, description="port of it; 0 = any free one, told in the log")

    # The API
    api_host: str = Field("127.0.0.1", description="where the API is served")
    api_port: int = Field(8080, ge=0, le=65535, description="port of it; 0 = any free one, told in the log")
    api_root_path: str = Field("", description="where a proxy has mounted the API, if it strips that from the path")
    api_origins: list[str] = Field(default_factory=list, description="web origins that may call the API (CORS), as a JSON array")
    api_body_bytes: int = Field(4_194_304, ge=1024, description="longest body of a request that is taken")
    api_query_s: float = Field(10.0, gt=0, le=300, description="a query of the API may take so long")
    api_clickhouse_connections: int = Field(8, ge=1, le=100, description="of one API process to ClickHouse")
    api_rate_storage: str = Field("memory://", description="where requests are counted; redis://… counts over several processes")
    oidc_issuer: str | None = Field(None, description="issuer of OpenID tokens that the API takes; only API keys where left out")
    oidc_audience: str | None = Field(None, description="audience that such a token must be for")
    oidc_jwks_url: str | None = Field(None, description="where the issuer's public keys are")
    oidc_tenant_claim: str = Field("tenant", description="claim that names the tenant; * = every tenant")
    oidc_role_claim: str = Field("role", description="claim that names viewer, operator, admin or service, or a list with one of them")
    live_frames: int = Field(10_000, ge=100, description="records kept per live stream for clients that come back or are slow")
    live_finished: int = Field(50_000, ge=0, description="executions that the API remembers after their end, until the databases have them")
    live_connections: int = Field(5_000, ge=1, description="clients of live streams per API process; further ones are refused")

    @model_validator(mode="before")
    @classmethod
    def _start_from_profile(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {**PROFILES.get(str(values.get("profile", "development")), {}), **values}

    @model_validator(mode="after")
    def _tokens_are_checked_in_full(self) -> Self:
        given = [name for name in ("oidc_issuer", "oidc_audience", "oidc_jwks_url") if getattr(self, name)]
        if len(given) not in (0, 3):
            raise ValueError(f"oidc_issuer, oidc_audience and oidc_jwks_url belong together; only {', '.join(given)} is set")
        return self

    @classmethod
    def explicit(cls) -> dict[str, str]:
        """Return {setting: where it was set} of what the environment and the .env file hold."""
        config = cls.model_config
        env_file = DotEnvSettingsSource(cls)()
        environment = EnvSettingsSource(cls)()
        return {**dict.fromkeys(env_file, str(config.get("env_file"))), **dict.fromkeys(environment, "environment")}

    @classmethod
    def unknown(cls) -> dict[str, str | None]:
        """Return {FLOWCHAIN_ variable that is no setting: the setting that it resembles} of environment and .env file.

        They are told, not refused: others share the prefix (Kubernetes sets FLOWCHAIN_…_SERVICE_HOST for a service
        of that name), and an older version must start where a newer one's settings are.
        """
        prefix = str(cls.model_config.get("env_prefix"))
        known = [f"{prefix}{name.upper()}" for name in cls.model_fields]
        given = {name.upper() for source in (EnvSettingsSource, DotEnvSettingsSource) for name in source(cls).env_vars}
        strange = sorted(name for name in given if name.startswith(prefix) and name not in known)
        return {name: next(iter(get_close_matches(name, known, 1, 0.8)), None) for name in strange}

    @cached_property
    def limits(self) -> Limits:
        """The limits as the core takes them: whole µs."""
        names = ("window", "lateness", "grace", "future", "idle", "linger")
        times = {f"{name}_us": round(getattr(self, f"{name}_s") * 1_000_000) for name in names}
        return Limits(
            **times, max_open=self.max_open, max_finished=self.max_finished, max_steps=self.max_steps,
            max_series=self.max_series, max_evidence=self.max_evidence, max_held=self.max_slices,
        )  # fmt: skip

    def environment(self, *names: str) -> dict[str, str]:
        """Return settings as the environment variables that give them to another process, secrets in the clear."""
        values = {name: getattr(self, name) for name in names}
        return {
            f"FLOWCHAIN_{name.upper()}": str(value.get_secret_value() if isinstance(value, SecretStr) else value)
            for name, value in values.items()
            if value is not None
        }

    def topic(self, name: str) -> str:
        """Return the physical name of a topic of the catalogue."""
        return f"{self.topic_prefix}{name}"

    def group(self, name: str) -> str:
        """Return the consumer group of a worker."""
        return f"{self.topic_prefix}flowchain-{name}"

    def kafka(self) -> dict[str, Any]:
        """Return what every librdkafka client needs to reach the brokers; what it logs goes to the logger "librdkafka"."""
        password = self.sasl_password.get_secret_value() if self.sasl_password else None
        config = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": password,
            "ssl.ca.location": _text(self.ssl_ca_location),
            "ssl.certificate.location": _text(self.ssl_certificate_location),
            "ssl.key.location": _text(self.ssl_key_location),
            "logger": logging.getLogger("librdkafka"),
        }
        return {name: value for name, value in config.items() if value is not None}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
