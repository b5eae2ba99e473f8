"""What is generated: valid, complete, the same every time, and never overwritten by what breaks it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from schemas import generate
from schemas.topics import CATALOGUE, EVENTS_DLQ, HEALTH, Topic


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with everything generated."""
    assert generate.main([], folder=tmp_path) == 0
    return tmp_path


def run(folder: Path, *arguments: str) -> tuple[int, list[str]]:
    said: list[str] = []
    return generate.main(arguments, said.append, folder), said


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(generate.text(document))


def test_what_is_checked_in_is_what_the_contract_says() -> None:
    assert generate.main(["--check"], print) == 0


@pytest.mark.parametrize("topic", CATALOGUE, ids=lambda topic: topic.name)
def test_every_topic_has_a_valid_schema_that_describes_itself(topic: Topic) -> None:
    schema = json.loads((generate.GENERATED / f"{topic.name}.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:flowchain:{topic.name}"
    assert schema["$schema"] == generate.DIALECT


def test_the_same_contract_gives_the_same_bytes_in_every_order() -> None:
    backwards = dict(reversed(generate.documents().items()))
    assert {name: generate.text(backwards[name]) for name in backwards} == {
        name: generate.text(document) for name, document in generate.documents().items()
    }
    assert all(generate.text(document).endswith("}\n") for document in backwards.values())


def test_asyncapi_has_a_channel_a_message_and_operations_for_each_topic() -> None:
    document = json.loads((generate.GENERATED / "asyncapi.json").read_text())
    assert document["asyncapi"] == "3.0.0"
    assert set(document["channels"]) == set(document["components"]["messages"]) == {topic.name for topic in CATALOGUE}
    parties = sum(len(topic.producers) + len(topic.consumers) for topic in CATALOGUE)
    assert len(document["operations"]) == parties
    assert {operation["action"] for operation in document["operations"].values()} == {"send", "receive"}


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = json.loads((generate.GENERATED / "asyncapi.json").read_text())
    for reference in references(document):
        if reference.startswith("#/"):
            found: Any = document
            for part in reference[2:].split("/"):
                found = found[part]
        else:
            assert (generate.GENERATED / reference).is_file(), reference


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [str(value["$ref"])] if "$ref" in value else [r for item in value.values() for r in references(item)]
    return [r for item in value for r in references(item)] if isinstance(value, list) else []


def test_dead_letters_are_bytes_with_the_reason_in_the_headers() -> None:
    message = generate.asyncapi()["components"]["messages"][EVENTS_DLQ.name]
    assert message["headers"]["schema"] == {"$ref": f"./{EVENTS_DLQ.name}.schema.json"}
    assert message["payload"]["format"] == "binary"


def test_check_names_each_stale_file(folder: Path) -> None:
    assert run(folder, "--check") == (0, [])
    (folder / "asyncapi.json").write_text("{}\n")
    (folder / f"{HEALTH.name}.schema.json").unlink()
    code, said = run(folder, "--check")
    assert code == 1
    assert said == [
        f"{folder}/asyncapi.json is stale: `make contract` writes it anew.\n",
        f"{folder}/{HEALTH.name}.schema.json is missing: `make contract` writes it.\n",
    ]
    assert run(folder) == run(folder, "--check") == (0, [])


def test_an_incompatible_change_is_refused_until_it_is_said_to_be_meant(folder: Path) -> None:
    path = folder / f"{HEALTH.name}.schema.json"
    change(path, lambda schema: schema["properties"].update(colour={"type": "string"}))
    before = path.read_text()
    code, said = run(folder)
    assert (code, said) == (1, [f"Incompatible: {HEALTH.name}.schema.json: $.colour: the field was removed.\n"])
    assert path.read_text() == before
    assert run(folder, "--check")[1][0] == said[0]
    assert run(folder, "--breaking") == run(folder, "--check") == (0, [])


def test_a_compatible_change_is_written(folder: Path) -> None:
    path = folder / f"{HEALTH.name}.schema.json"
    change(path, lambda schema: schema["properties"]["kind"]["enum"].remove("component"))
    assert run(folder) == run(folder, "--check") == (0, [])


def test_a_topic_that_is_gone_is_an_incompatible_change(folder: Path) -> None:
    gone = folder / "flowchain.gone.v1.schema.json"
    gone.write_text("{}\n")
    assert run(folder) == (1, ["Incompatible: flowchain.gone.v1.schema.json: the topic was removed.\n"])
    assert run(folder, "--breaking") == (0, [])
    assert not gone.exists()
