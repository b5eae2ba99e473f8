"""Every query of the API in ClickHouse names its tenant, in every part that reads a table: nothing else keeps tenants apart there."""

import re
from pathlib import Path

import pytest

from connectors.http.clickhouse import QUERIES, text_of

TABLES = re.compile(r"\bFROM\s+((?:trace|dependency)_use\(tenant = %\(tenant\)s, since_us = %\(since_us\)s, until_us = %\(until_us\)s\)|(?:chain|trace|dependency)_\w+)(.*?)(?=\bGROUP BY|\bORDER BY|\Z)", re.DOTALL)


@pytest.mark.parametrize("path", sorted(QUERIES.glob("*.sql")), ids=lambda path: path.stem)
def test_every_read_of_a_table_is_of_one_tenant(path: Path) -> None:
    reads = TABLES.findall(re.sub(r"--.*", "", text_of(path.stem)))
    assert reads
    for table, rest in reads:
        assert re.match(r"\s*(?:AS \w+|FINAL)?\s*WHERE tenant = %\(tenant\)s\b(?!.*\bOR tenant\b)", rest, re.DOTALL), table
    assert "JOIN" not in text_of(path.stem).replace("ARRAY JOIN", "")


def test_every_query_is_asked() -> None:
    sources = "".join(path.read_text() for path in (Path(__file__).parents[2] / "connectors" / "http" / "routes").glob("*.py"))
    assert {path.stem for path in QUERIES.glob("*.sql")} == set(re.findall(r'\.select\(\s*"(\w+)"', sources))
