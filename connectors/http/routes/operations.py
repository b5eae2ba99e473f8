"""The pipeline itself: topics, lag, and dead letters with a second chance. For keys of every tenant: letters are of any."""
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from connectors.deadletters import StoredLetter, find_letters, letters_after
from connectors.http.paging import Page, Paged
from connectors.http.problems import FieldProblem, Refused, not_found
from connectors.http.scope import Operator, Overseer
from connectors.lag import group_lag
from connectors.redrive import redrive, sort_out
from connectors.topics import partition_counts
from schemas.topics import CATALOGUE, DEAD_LETTERS, EVENTS

router = APIRouter(prefix="/v1", tags=["operations"])
LetterName = Annotated[str, Path(pattern=r"^\d{1,9}:\d{1,18}$", description="partition:offset")]
Of = Annotated[str, Query(max_length=249, description="whose dead letters: the events', or those of a topic that the sinks read")]
Stage = Literal["decode", "validate", "late", "future", "oversize", "null", "foreign"]


class TopicInfo(BaseModel):
    """A topic of the catalogue."""

    name: str
    key: str
    value: str
    producers: list[str]
    consumers: list[str]
    sentence: str
    public: bool
    cleanup: Literal["delete", "compact"]
    retention_ms: int
    partitions: int = Field(description="0: it was not created")


class Lag(BaseModel):
    """How far a consumer group is behind the end of a topic."""

    group: str
    topic: str
    lag: int = Field(description="records; marks of transactions count")


class Letter(BaseModel):
    """A record that was refused."""

    letter: str = Field(description="partition:offset in the topic of the dead letters")
    stage: Stage
    reason: str
    topic: str
    partition: int | None
    offset: int | None
    bytes: int
    redriven: bool


class LetterContent(Letter):
    """A record that was refused, with what it holds."""

    key: str | None
    value: str | None = Field(description="as text; bytes that are none are written as \\x…")


class RedriveIn(BaseModel):
    """Which letters are sent again."""

    model_config = ConfigDict(extra="forbid")
    letters: Annotated[list[Annotated[str, Field(pattern=r"^\d{1,9}:\d{1,18}$")]], Field(min_length=1, max_length=1000)]
    again: StrictBool = Field(False, description="also those that were sent again before")
    dry_run: StrictBool = Field(False, description="only say what would be sent")


class Kept(BaseModel):
    """A letter that was not sent."""

    letter: str
    why: str


class Redriven(BaseModel):
    """What was sent again, and what not."""

    sent: list[str]
    kept: list[Kept]


@router.get("/topics", summary="List topics")
def list_topics(scope: Overseer) -> list[TopicInfo]:
    """Return the catalogue of topics with what is there of it."""
    counts = partition_counts(scope.services.settings)
    return [
        TopicInfo(
            name=topic.name, key=topic.key, value=topic.value, producers=list(topic.producers), consumers=list(topic.consumers),
            sentence=topic.sentence, public=topic.public, cleanup=topic.cleanup, retention_ms=topic.retention_ms,
            partitions=counts.get(scope.services.settings.topic(topic.name), 0),
        )
        for topic in CATALOGUE
    ]  # fmt: skip


@router.get("/lag", summary="How far the workers are behind")
def show_lag(scope: Overseer) -> list[Lag]:
    """Return the lag of every consumer group and topic."""
    return [Lag(**row) for row in group_lag(scope.services.settings)]


@router.get("/dead-letters", summary="List dead letters")
def list_letters(scope: Overseer, page: Paged, of: Of = EVENTS.name, stage: Annotated[Stage | None, Query()] = None) -> Page[Letter]:
    """Return dead letters by partition and offset."""
    after = page.after(int, int)
    found = letters_after(scope.services.settings, _topic(of), after or (-1, -1), stage, page.limit + 1)
    return page.page(found, lambda x: x.id, lambda x: Letter(**_facts(x)))


@router.get("/dead-letters/{letter}", summary="Show a dead letter")
def show_letter(scope: Overseer, letter: LetterName, of: Of = EVENTS.name) -> LetterContent:
    """Return a dead letter with the refused record as it was."""
    found = find_letters(scope.services.settings, _topic(of), [_id(letter)])
    if not found:
        raise not_found(f"dead letter {letter}")
    return LetterContent(**_facts(found[0]), key=_text(found[0].key), value=_text(found[0].value))


@router.post("/redrives", summary="Send dead letters again")
def redrive_letters(scope: Operator, body: RedriveIn) -> Redriven:
    """Send letters to the events topic again; each is sent once, so this needs no idempotency key.

    Those that ingest would refuse again stay, with the reason. Letters are never deleted. Who sent which stands in the audit log.
    """
    settings = scope.services.settings
    found = find_letters(settings, DEAD_LETTERS[EVENTS.name], [_id(name) for name in body.letters])
    send, keep = sort_out(settings, found, again=body.again)
    if send and not body.dry_run:
        with scope.database() as connection:
            connection.execute("INSERT INTO redrives (letters, again) VALUES (%s, %s)", [[_name(x) for x in send], body.again])
        redrive(settings, send)
    missing = sorted(set(body.letters) - {_name(x) for x in found})
    kept = [Kept(letter=_name(x.stored), why=x.why) for x in keep] + [Kept(letter=name, why="there is no such letter") for name in missing]
    return Redriven(sent=[_name(x) for x in send], kept=kept)


def _topic(of: str) -> Any:
    if of not in DEAD_LETTERS:
        reason = f"there are dead letters of {', '.join(DEAD_LETTERS)} only"
        raise Refused(422, f"query.of: {reason}", errors=[FieldProblem(field="query.of", reason=reason)])
    return DEAD_LETTERS[of]


def _id(name: str) -> tuple[int, int]:
    partition, offset = name.split(":")
    return int(partition), int(offset)


def _name(stored: StoredLetter) -> str:
    return f"{stored.partition}:{stored.offset}"


def _facts(stored: StoredLetter) -> dict[str, Any]:
    letter = stored.letter
    return {
        "letter": _name(stored), "stage": stored.stage, "reason": letter.reason if letter else "it has no headers of FlowChain",
        "topic": letter.topic if letter else "", "partition": letter.partition if letter else None,
        "offset": letter.offset if letter else None, "bytes": len(stored.value or b""), "redriven": stored.redriven,
    }  # fmt: skip


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
