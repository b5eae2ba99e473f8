"""Write, or check, what is generated from the contract: a JSON Schema per topic and one AsyncAPI document.

    python -m schemas.generate              write; an incompatible change is refused
    python -m schemas.generate --breaking   write it nevertheless: for a topic that nobody reads yet
    python -m schemas.generate --check      exit 1 with a sentence per file that is stale
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from schemas import topics
from schemas.analysis import Alert, Anomaly, Incident
from schemas.compatibility import Schema, incompatibilities
from schemas.definitions import ChainDefinition
from schemas.events import CHAIN_MESSAGE
from schemas.health import DependencyWindow, HealthWindow
from schemas.internal import Execution, Partial, PartitionState, TraceBatch
from schemas.operations import DataLoss, DeadLetter, RecoveryAction, RecoveryCommand
from schemas.slo import SloStatus
from schemas.tenants import LimitReached, Tenant
from schemas.topics import CATALOGUE, Topic
from schemas.violations import Violation

GENERATED = Path(__file__).parent / "generated"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONTRACT_VERSION = "1.0.0"
KAFKA_BINDING = "0.5.0"
SUFFIX = ".schema.json"

MODELS: Mapping[str, TypeAdapter[Any]] = {
    topics.EVENTS.name: CHAIN_MESSAGE,
    **{
        topic.name: TypeAdapter(model)
        for topic, model in (
            (topics.DEFINITIONS, ChainDefinition),
            (topics.VIOLATIONS, Violation),
            (topics.HEALTH, HealthWindow),
            (topics.DEPENDENCIES, DependencyWindow),
            (topics.ANOMALIES, Anomaly),
            (topics.INCIDENTS, Incident),
            (topics.ALERTS, Alert),
            (topics.TENANTS, Tenant),
            (topics.LIMITS, LimitReached),
            (topics.SLO, SloStatus),
            (topics.DATA_LOSS, DataLoss),
            (topics.RECOVERY_COMMANDS, RecoveryCommand),
            (topics.RECOVERY_ACTIONS, RecoveryAction),
            *((topic, DeadLetter) for topic in topics.DEAD_LETTERS.values()),
        )
    },
}
"""What validates the values of the public topics; of the dead letters, what their headers say."""

STRUCTS: Mapping[str, tuple[type[msgspec.Struct], ...]] = {
    topics.OPEN_EXECUTIONS.name: (Execution, PartitionState),
    topics.PARTIALS.name: (Partial,),
    topics.TRACES.name: (TraceBatch,),
}
"""What the values of the internal topics are: one of these."""

SERIES_MARK: Schema = {"const": 1, "type": "integer", "description": "the key names a series that ingest has seen"}
OPAQUE: Mapping[str, Schema] = {
    topics.ANALYSIS_STATE.name: {
        "title": "StateEntry", "description": "JSON that only the stage which wrote it can read; the key begins with the stage's name.",
    },
    topics.SPANS.name: {"title": "Spans", "description": "An array of spans of one trace that only intake reads.", "type": "array"},
    topics.OPEN_TRACES.name: {"title": "LiveTrace", "description": "What intake remembers of a trace, or how far it has read: only intake reads it."},
    topics.CLOUDEVENTS.name: {
        "title": "CloudEvent", "description": "A CloudEvent 1.0 (structured mode), or the data of one (binary mode); docs/intake.md says what becomes of it.",
        "type": "object",
    },
}  # fmt: skip
"""What the values of the other topics are, in words."""


class _Untitled(GenerateJsonSchema):
    """Without a title per field: it says what the name says."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False."""
        return False


def json_schema(topic: Topic) -> Schema:
    """Return the JSON Schema of a topic's values. Raises KeyError for a topic without a model here."""
    if topic.name in MODELS:
        body = MODELS[topic.name].json_schema(schema_generator=_Untitled)
    elif topic.name in OPAQUE:
        body = dict(OPAQUE[topic.name])
    else:
        body = _struct_schema(STRUCTS[topic.name])
    if topic is topics.OPEN_EXECUTIONS:
        body["anyOf"].append(SERIES_MARK)
    return {"$schema": DIALECT, "$id": f"urn:flowchain:{topic.name}", "title": topic.value, **body}


def _struct_schema(structs: tuple[type[msgspec.Struct], ...]) -> Schema:
    schemas, definitions = msgspec.json.schema_components(structs, ref_template="#/$defs/{name}")
    for definition in definitions.values():
        definition["additionalProperties"] = False  # nothing else is written; a reader passes over what it does not know
        definition["description"] = " ".join(definition.get("description", "").split())
    return {"anyOf": list(schemas), "$defs": dict(definitions)}


# -- AsyncAPI ---------------------------------------------------------------------------------------------------------


def asyncapi(catalogue: Sequence[Topic] = CATALOGUE) -> dict[str, Any]:
    """Return the AsyncAPI 3 document: a channel and a message per topic, an operation per producer and consumer."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "FlowChain",
            "version": CONTRACT_VERSION,
            "description": "Follows every execution of a business chain through services and Kafka. Addresses are "
            "without the deployment's topic prefix; topics marked x-internal may change between versions.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic.name: _channel(topic) for topic in catalogue},
        "operations": {name: operation for topic in catalogue for name, operation in _operations(topic)},
        "components": {"messages": {topic.name: _message(topic) for topic in catalogue}},
    }


def _channel(topic: Topic) -> dict[str, Any]:
    return {
        "address": topic.name,
        "description": topic.sentence,
        "messages": {"record": {"$ref": f"#/components/messages/{topic.name}"}},
        "bindings": {"kafka": _kafka_channel(topic)},
        "x-internal": not topic.public,
        "x-partitions": {
            "source": "as many as the events topic",
            "analysis": "as many as the partials topic",
            "one": "1",
        }[topic.partitions],
    }


def _kafka_channel(topic: Topic) -> dict[str, Any]:
    configuration: dict[str, Any] = {"cleanup.policy": [topic.cleanup]}
    if topic.cleanup == "delete":
        configuration["retention.ms"] = topic.retention_ms
    configuration |= {key: int(value) if value.isdecimal() else value for key, value in topic.config.items()}
    binding = {"topic": topic.name, "topicConfiguration": configuration, "bindingVersion": KAFKA_BINDING}
    return binding | ({"partitions": 1} if topic.partitions == "one" else {})


def _message(topic: Topic) -> dict[str, Any]:
    schema = {"schemaFormat": "application/schema+json;version=draft-2020-12", "schema": {"$ref": f"./{topic.name}{SUFFIX}"}}
    message = {
        "name": topic.value,
        "summary": topic.sentence,
        "contentType": "application/json",
        "payload": schema,
        "bindings": {"kafka": {"key": {"type": "string", "description": topic.key}, "bindingVersion": KAFKA_BINDING}},
    }
    if topic in topics.DEAD_LETTERS.values():
        refused = {"type": "string", "format": "binary", "description": topic.value}
        message |= {"headers": schema, "payload": refused, "contentType": "application/octet-stream"}
    return message


def _operations(topic: Topic) -> list[tuple[str, dict[str, Any]]]:
    parties = [("send", name) for name in topic.producers] + [("receive", name) for name in topic.consumers]
    return [(f"{action} {topic.name} ({party})", _operation(topic, action, party)) for action, party in parties]


def _operation(topic: Topic, action: str, party: str) -> dict[str, Any]:
    return {
        "action": action,
        "title": f"{party}: {action} {topic.name}",
        "channel": {"$ref": f"#/channels/{topic.name}"},
        "messages": [{"$ref": f"#/channels/{topic.name}/messages/record"}],
        "tags": [{"name": party}],
    }


# -- files ------------------------------------------------------------------------------------------------------------


def documents() -> dict[str, dict[str, Any]]:
    """Return all that is generated, by file name."""
    return {f"{topic.name}{SUFFIX}": json_schema(topic) for topic in CATALOGUE} | {"asyncapi.json": asyncapi()}


def text(document: dict[str, Any]) -> str:
    """Return a document as it stands in its file: the same for the same contract."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def stale(folder: Path, wanted: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return one sentence per file that is not what the contract says."""
    found = []
    for name, document in sorted(wanted.items()):
        path = folder / name
        if not path.exists():
            found.append(f"{path} is missing: `make contract` writes it.")
        elif path.read_text(encoding="utf-8") != text(document):
            found.append(f"{path} is stale: `make contract` writes it anew.")
    return found + [f"{path} belongs to no topic: `make contract` removes it." for path in _left_over(folder, wanted)]


def broken(folder: Path, wanted: Mapping[str, dict[str, Any]]) -> list[str]:
    """Return one sentence per place where the contract refuses what the schemas in the folder allowed."""
    found = [f"{path.name}: the topic was removed" for path in _left_over(folder, wanted)]
    for name, document in sorted(wanted.items()):
        path = folder / name
        if name.endswith(SUFFIX) and path.exists():
            old = json.loads(path.read_text(encoding="utf-8"))
            found += [f"{name}: {reason}" for reason in incompatibilities(old, document)]
    return [f"Incompatible: {reason}." for reason in found]


def write(folder: Path, wanted: Mapping[str, dict[str, Any]]) -> None:
    """Write all files and remove those of topics that are gone."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in _left_over(folder, wanted):
        path.unlink()
    for name, document in wanted.items():
        (folder / name).write_text(text(document), encoding="utf-8")


def _left_over(folder: Path, wanted: Mapping[str, dict[str, Any]]) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if path.name not in wanted]


def main(arguments: Sequence[str] | None = None, say: Callable[[str], object] = sys.stderr.write, folder: Path = GENERATED) -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m schemas.generate", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--breaking", action="store_true", help="allow an incompatible change")
    options = parser.parse_args(arguments)
    wanted = documents()
    problems = [] if options.breaking else broken(folder, wanted)
    if options.check:
        problems += stale(folder, wanted)
    elif not problems:
        write(folder, wanted)
    for problem in problems:
        say(problem + "\n")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
