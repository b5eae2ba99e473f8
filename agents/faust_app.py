"""How every Faust app here is set up, and why it is safe.

Topics exist beforehand (`flowchain topics apply`). Agents iterate `stream.noack().events()`, acknowledge after the
durable step, run once per partition set, and crash the process on any error: its supervisor restarts it.
"""

import ssl
from typing import Any

import faust
import mode
from faust.auth import SASLCredentials, SSLCredentials
from faust.transport.drivers import aiokafka as driver
from faust.types.auth import SASLMechanism

from agents.steady import SteadyConsumer
from connectors.settings import Settings

AGENT: dict[str, Any] = {"concurrency": 1, "supervisor_strategy": mode.CrashingSupervisor}
"""Options of every agent: an error ends the process, because whatever is skipped would be lost."""


def make_app(settings: Settings, name: str) -> faust.App:
    """Return a Faust app whose consumer group is that of worker `name`."""
    driver.Transport.Consumer = SteadyConsumer
    return faust.App(
        settings.group(name),
        broker=[f"kafka://{address.strip()}" for address in settings.bootstrap_servers.split(",")],
        broker_credentials=_credentials(settings),
        store="memory://",
        value_serializer="raw",
        key_serializer="raw",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        stream_wait_empty=False,
        stream_buffer_maxsize=settings.read_ahead,
        broker_max_poll_records=min(500, settings.read_ahead),
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_timeout_s,
        broker_heartbeat_interval=max(0.5, settings.session_timeout_s / 10),
        broker_rebalance_timeout=60.0,
        broker_request_timeout=90.0,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=8 << 20,
        table_standby_replicas=0,
        autodiscover=False,
    )


def _credentials(settings: Settings) -> Any:
    context = None
    if settings.security_protocol.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.ssl_ca_location)
        if settings.ssl_certificate_location:
            context.load_cert_chain(settings.ssl_certificate_location, settings.ssl_key_location)
    if settings.security_protocol.startswith("SASL"):
        password = settings.sasl_password.get_secret_value() if settings.sasl_password else None
        return SASLCredentials(
            username=settings.sasl_username, password=password, ssl_context=context,
            mechanism=SASLMechanism(settings.sasl_mechanism or "PLAIN"),
        )  # fmt: skip
    return SSLCredentials(context) if context is not None else None
