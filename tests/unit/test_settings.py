"""Settings: names, profiles, units, and what is refused."""

import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from connectors.settings import PROFILES, Settings
from connectors.topics import partitions_of, topic_config
from schemas.topics import CATALOGUE, EVENTS, OPEN_EXECUTIONS, PARTIALS
from streams.limits import Limits


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No environment and no .env file but the test's own."""
    import os

    for name in list(os.environ):
        if name.upper().startswith("FLOWCHAIN_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults_are_the_cores_defaults() -> None:
    assert Settings().limits == Limits()


def test_seconds_become_microseconds() -> None:
    limits = Settings(window_s=0.5, lateness_s=0, grace_s=1, future_s=2, idle_s=0.25, linger_s=3, max_open=7).limits
    assert (limits.window_us, limits.lateness_us, limits.grace_us) == (500_000, 0, 1_000_000)
    assert (limits.future_us, limits.idle_us, limits.linger_us, limits.max_open) == (2_000_000, 250_000, 3_000_000, 7)


def test_profile_changes_defaults_and_what_is_set_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCHAIN_PROFILE", "production")
    monkeypatch.setenv("FLOWCHAIN_REPLICATION_FACTOR", "2")
    settings = Settings()
    assert (settings.replication_factor, settings.source_partitions, settings.log_format) == (2, 12, "json")


@pytest.mark.parametrize("profile", PROFILES)
def test_profiles_name_only_settings_that_exist(profile: str) -> None:
    assert PROFILES[profile].keys() <= Settings.model_fields.keys()
    Settings(profile=profile)


def test_told_where_a_value_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCHAIN_WINDOW_S", "5")
    Path(".env").write_text("FLOWCHAIN_LATENESS_S=1\nFLOWCHAIN_WINDOW_S=7\n")
    assert (Settings().window_s, Settings().lateness_s) == (5, 1)
    assert Settings.explicit() == {"lateness_s": ".env", "window_s": "environment"}


@pytest.mark.parametrize(
    ("name", "value"),
    [("window_s", "0"), ("topic_prefix", "a b"), ("max_open", "0"), ("http_port", "70000"), ("profile", "test"), ("dead_letter_ratio", "0"),
     ("postgres_schema", "x; drop"), ("dead_letter_window", "99"), ("window_s", "soon")],
)  # fmt: skip
def test_nonsense_is_refused_with_the_settings_name(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"FLOWCHAIN_{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert caught.value.errors()[0]["loc"] == (name,)


def test_secrets_are_not_shown() -> None:
    settings = Settings(postgres_dsn="postgresql://u:hunter2@h/d", clickhouse_dsn="clickhouse://u:hunter2@h", sasl_password="hunter2")
    assert "hunter2" not in repr(settings) + str(settings.model_dump())


def test_kafka_gets_only_what_is_set_and_the_password_in_the_clear() -> None:
    plain = {"bootstrap.servers": "127.0.0.1:9092", "security.protocol": "PLAINTEXT"}
    assert Settings().kafka() == {**plain, "logger": logging.getLogger("librdkafka")}
    Path("ca").touch()
    kafka = Settings(security_protocol="SASL_SSL", sasl_mechanism="PLAIN", sasl_username="u", sasl_password="p", ssl_ca_location="ca").kafka()
    assert kafka["sasl.password"] == "p"
    assert (kafka["sasl.username"], kafka["sasl.mechanism"], kafka["ssl.ca.location"]) == ("u", "PLAIN", "ca")


def test_another_process_gets_the_same_settings() -> None:
    given = Settings(window_s=0.5, postgres_dsn="postgresql://u:hunter2@h/d")
    environment = given.environment("window_s", "postgres_dsn", "sasl_password")
    assert environment == {"FLOWCHAIN_WINDOW_S": "0.5", "FLOWCHAIN_POSTGRES_DSN": "postgresql://u:hunter2@h/d"}


def test_variables_that_are_no_settings_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWCHAIN_LATENES_S", "5")
    monkeypatch.setenv("FLOWCHAIN_WINDOW_S", "5")
    Path(".env").write_text("FLOWCHAIN_SOMETHING_ELSE=1\nOTHER=1\n")
    assert Settings.unknown() == {"FLOWCHAIN_LATENES_S": "FLOWCHAIN_LATENESS_S", "FLOWCHAIN_SOMETHING_ELSE": None}


def test_prefix_is_put_before_topics_and_groups() -> None:
    settings = Settings(topic_prefix="test-")
    assert settings.topic(EVENTS.name) == "test-flowchain.events.v1"
    assert settings.group("ingest") == "test-flowchain-ingest"


def test_topics_have_the_partitions_of_their_kind() -> None:
    settings = Settings(source_partitions=5, analysis_partitions=3)
    counts = {topic.name: partitions_of(topic, settings) for topic in CATALOGUE}
    assert (counts[EVENTS.name], counts[PARTIALS.name], counts[OPEN_EXECUTIONS.name]) == (5, 3, 5)
    assert set(counts.values()) == {1, 3, 5}


def test_topics_are_kept_or_compacted() -> None:
    assert topic_config(EVENTS)["cleanup.policy"] == "delete"
    assert "retention.ms" in topic_config(EVENTS)
    assert topic_config(EVENTS)["message.timestamp.type"] == "LogAppendTime"
    assert topic_config(OPEN_EXECUTIONS)["cleanup.policy"] == "compact"
    assert "retention.ms" not in topic_config(OPEN_EXECUTIONS)
