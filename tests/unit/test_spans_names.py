"""Names, ids and log templates stay within the contract, whatever the text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.spans.log_lines import mask, parse_line
from connectors.spans.names import MAX_ID, MAX_NAME, MAX_TEMPLATE, clean_id, clean_name, service_of_pod

ANY_TEXT = st.text(max_size=700)


@given(ANY_TEXT)
def test_a_name_has_1_to_128_characters_and_is_always_the_same(text: str) -> None:
    name = clean_name(text)
    assert 1 <= len(name) <= MAX_NAME
    assert name == clean_name.__wrapped__(text)
    assert not any(ord(character) < 32 for character in name)


@given(st.text(min_size=1, max_size=200))
def test_an_id_has_at_most_64_characters_and_short_ones_stay(text: str) -> None:
    assert 1 <= len(clean_id(text)) <= MAX_ID
    assert len(text) > MAX_ID or clean_id(text) == text


def test_names_that_differ_after_the_limit_stay_different() -> None:
    assert clean_name("x" * 200 + "a") != clean_name("x" * 200 + "b")


@pytest.mark.parametrize(
    ("pod", "service"),
    [
        ("ts-travel2-service-5c66d57d58-6mp2b", "ts-travel2-service"),
        ("ts-station-food-service-dc4d75dd-fw6ft", "ts-station-food-service"),
        ("kafka-0", "kafka-0"),
        ("front", "front"),
    ],
)
def test_the_service_of_a_pod_lacks_the_replica_set(pod: str, service: str) -> None:
    assert service_of_pod(pod) == service


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("17:11:21.191 INFO  v.c.Code#54 TraceID: ab SpanID: cd [x]", ("info", "v.c.Code#54")),
        ("17:11:21.191 ERROR o.a.[.[.[dispatcher]#175 boom", ("error", "o.a.[.[.[dispatcher]#175")),
        ('{"log":"18:05:38.423 WARN  u.c.User#48 x\\n","stream', ("warn", "u.c.User#48")),
        ("WARNING: 3 of 17 ovens at 0x7fab12cd34", ("warn", "WARNING: * of * ovens at *x*fab*cd*")),
        ("order 4d2a46c7-71cb-4cf1-b5bb-b68406d9da6f of cff8978c2b241d3b", ("info", "order * of *")),
        ("", ("info", "(empty)")),
        ("first\n\tat second.line(X.java:1)", ("info", "first")),
    ],
)
def test_a_log_line_has_a_level_and_a_statement(line: str, expected: tuple[str, str]) -> None:
    assert parse_line(line) == expected


@given(ANY_TEXT)
def test_a_template_has_1_to_512_characters_and_no_digits_unless_hashed(text: str) -> None:
    level, template = parse_line(text)
    assert level in ("trace", "debug", "info", "warn", "error", "fatal")
    assert 1 <= len(template) <= MAX_TEMPLATE
    assert mask(text) == mask(text.strip())
