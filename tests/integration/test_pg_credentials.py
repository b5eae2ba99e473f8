"""Credentials: encrypted at rest, rotated, and in no output, log or trace of an error."""

import json
import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from cryptography.fernet import Fernet
from helpers_postgres import Space, space
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from connectors.credentials import (
    CredentialError,
    Vault,
    delete_credential,
    key_id,
    list_credentials,
    read_credential,
    rotate_credentials,
    store_credential,
)
from infra.cli import app
from infra.devstack import Stack

pytestmark = pytest.mark.timeout(120)
OLD_KEY, NEW_KEY = Fernet.generate_key().decode(), Fernet.generate_key().decode()
OLD, NEW = Vault(SecretStr(OLD_KEY)), Vault(SecretStr(f"{NEW_KEY}, {OLD_KEY}"))
VALUE = "hunter2-very-secret"


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[Space]:
    with space(stack) as found:
        yield found


@pytest.fixture
def pg(shared: Space) -> Space:
    shared.ask("WITH gone AS (DELETE FROM flow_credentials) DELETE FROM audit_log RETURNING 1")
    return shared


def keep(pg: Space, vault: Vault = OLD, tenant: str = "t", value: str = VALUE, **more: Any) -> None:
    with pg.database.session(tenant, "alice") as session:
        store_credential(session, vault, tenant, "flow", "api", SecretStr(value), actor="alice", **more)


def read(pg: Space, vault: Vault, tenant: str = "t") -> str:
    with pg.database.session(tenant, "alice") as session:
        return read_credential(session, vault, tenant, "flow", "api").get_secret_value()


def test_value_is_read_back_and_not_in_the_database(pg: Space) -> None:
    keep(pg, value="päss\u0000 word")
    assert read(pg, OLD) == "päss\u0000 word"
    keep(pg)
    dump = pg.ask("SELECT string_agg(c::text, '') || (SELECT string_agg(a::text, '') FROM audit_log a) FROM flow_credentials c")[0][0]
    for hidden in (VALUE, VALUE.encode().hex(), OLD_KEY, "ciphertext"):
        assert hidden not in dump
    assert pg.ask("SELECT action, actor, object_id FROM audit_log ORDER BY id") == [("insert", "alice", "flow/api"), ("update", "alice", "flow/api")]


def test_list_has_no_values(pg: Space) -> None:
    keep(pg, description="bank")
    keep(pg)
    with pg.database.session("t", "alice") as session:
        (row,) = list_credentials(session)
    assert (row["description"], row["key_id"], row["created_by"]) == ("bank", key_id(OLD_KEY), "alice")
    assert "ciphertext" not in row
    assert VALUE not in repr(row)


def test_other_tenants_have_neither_row_nor_value(pg: Space) -> None:
    keep(pg)
    with pytest.raises(CredentialError, match="u has no credential api of flow"):
        read(pg, OLD, "u")
    with pg.database.session("u", "bob") as session:
        assert list_credentials(session) == []
        assert not delete_credential(session, "t", "flow", "api")


def test_rotation_takes_everything_to_the_first_key(pg: Space) -> None:
    for tenant in ("t", "u"):
        keep(pg, tenant=tenant)
    keep(pg, NEW, tenant="v")
    with pg.database.session("*", "root") as session:
        assert rotate_credentials(session, NEW) == 2
        assert rotate_credentials(session, NEW) == 0
    assert pg.ask("SELECT tenant, key_id, rotated_at IS NOT NULL FROM flow_credentials ORDER BY 1") == [
        ("t", NEW.key_id, True), ("u", NEW.key_id, True), ("v", NEW.key_id, False),
    ]  # fmt: skip
    assert read(pg, Vault(SecretStr(NEW_KEY)), "u") == VALUE
    with pytest.raises(CredentialError, match=f"its key is {NEW.key_id}"):
        read(pg, OLD)


def test_rotation_without_an_old_key_changes_nothing(pg: Space) -> None:
    keep(pg, tenant="a", vault=Vault(SecretStr(f"{OLD_KEY}")))
    keep(pg, tenant="b", vault=Vault(SecretStr(Fernet.generate_key().decode())))
    before = pg.ask("SELECT tenant, ciphertext, key_id FROM flow_credentials ORDER BY 1")
    with pytest.raises(CredentialError, match="the credential api of b's flow is not encrypted with a key"), pg.database.session("*", "root") as session:
        rotate_credentials(session, NEW)
    assert pg.ask("SELECT tenant, ciphertext, key_id FROM flow_credentials ORDER BY 1") == before


def test_ciphertext_in_another_place_is_refused(pg: Space) -> None:
    keep(pg, tenant="rich", value="theirs")
    keep(pg, tenant="poor", value="mine")
    pg.ask("UPDATE flow_credentials SET ciphertext = (SELECT ciphertext FROM flow_credentials WHERE tenant = 'rich') WHERE tenant = 'poor' RETURNING 1")
    with pytest.raises(CredentialError, match="ciphertext of another"):
        read(pg, OLD, "poor")


@pytest.mark.parametrize(("keys", "message"), [
    (None, "without FLOWCHAIN_CREDENTIAL_KEYS"), (" , ", "without FLOWCHAIN_CREDENTIAL_KEYS"), (f"{OLD_KEY},nonsense", "32 bytes in URL-safe base64"),
], ids=["none", "empty", "nonsense"])  # fmt: skip
def test_keys_that_are_none(keys: str | None, message: str) -> None:
    with pytest.raises(CredentialError, match=message) as caught:
        Vault(SecretStr(keys) if keys else None)
    assert OLD_KEY not in str(caught.value)
    assert "nonsense" not in str(caught.value)


def test_value_must_be_something(pg: Space) -> None:
    for value in ("", "x" * 65_537):
        with pytest.raises(CredentialError, match="1 to 65,536"):
            keep(pg, value=value)


def test_neither_repr_nor_log_shows_anything(pg: Space, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)
    settings = pg.settings.model_copy(update={"credential_keys": SecretStr(OLD_KEY), "tenant_key": SecretStr("ab" * 32)})
    keep(pg)
    with pg.database.session("t", "alice") as session:
        value = read_credential(session, OLD, "t", "flow", "api")
    structlog.get_logger("test").error("all", value=value, vault=OLD, settings=settings, text=f"{value} {settings} {settings.model_dump_json()}")
    logging.getLogger("test").error("%s %r %s %r", value, value, OLD, settings)
    out, err = capfd.readouterr()
    for hidden in (VALUE, OLD_KEY, "ab" * 32):
        assert hidden not in out + err + caplog.text


def run(pg: Space, *arguments: str, stdin: str = "", keys: str = OLD_KEY) -> Result:
    env = {
        **os.environ, "FLOWCHAIN_POSTGRES_DSN": pg.settings.postgres_dsn.get_secret_value(), "FLOWCHAIN_POSTGRES_SCHEMA": pg.schema,
        "FLOWCHAIN_CREDENTIAL_KEYS": keys,
    }  # fmt: skip
    done = CliRunner().invoke(app, ["credentials", *arguments], env=env, input=stdin)
    assert VALUE not in done.output
    return done


def test_commands(pg: Space) -> None:
    assert run(pg, "set", "flow", "api", "--tenant", "t", "--description", "bank", stdin=f"{VALUE}\n").exit_code == 0
    assert read(pg, OLD) == VALUE
    (row,) = json.loads(run(pg, "list", "--tenant", "*", "--json").stdout)
    assert (row["tenant"], row["name"], row["description"]) == ("t", "api", "bank")
    assert "bank" in run(pg, "list", "--tenant", "t").stdout
    assert json.loads(run(pg, "rotate", "--json", keys=f"{NEW_KEY},{OLD_KEY}").stdout) == {"rotated": 1, "key": NEW.key_id}
    assert read(pg, Vault(SecretStr(NEW_KEY))) == VALUE
    assert "0 encrypted anew" in run(pg, "rotate", keys=NEW_KEY).stdout
    assert run(pg, "delete", "flow", "api", "--tenant", "t").exit_code == 0
    assert "no credential" in str(run(pg, "delete", "flow", "api", "--tenant", "t").exception)
    assert isinstance(run(pg, "set", "flow", "api", stdin="x", keys="").exception, CredentialError)
