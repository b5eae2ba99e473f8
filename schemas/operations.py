"""Records about the pipeline itself: dead letters, data loss, recovery."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Count, Id, Name, OptionalName, Record, UnixUs


class DeadLetter(Record):
    """Why a record was refused. The dead letter itself is the raw record; this is what its headers say."""

    topic: Name
    partition: Count
    offset: Count
    index: Count | None = Field(None, description="which event of the record, where that holds an array; the letter is this event")
    stage: Literal["decode", "validate", "late", "future", "oversize", "null"]
    reason: Annotated[str, Field(max_length=512)] = Field(description="names the field; never holds a value of it")
    disposition: Literal["refused", "redriven"] = "refused"
    letter_offset: Count | None = Field(
        None, description="of redriven: which dead letter of the same partition was sent again; such a record is its mark"
    )


class DataLoss(Record):
    """Offsets that were gone before they could be read (`flowchain.dataloss.v1`)."""

    id: Id
    topic: Name
    partition: Count
    first_offset: Count
    last_offset: Count
    detected_unix_us: UnixUs
    reason: Annotated[str, Field(max_length=512)]


class RecoveryCommand(Record):
    """What should be done about an incident (`flowchain.recovery.commands.v1`)."""

    id: Id
    incident: Id
    tenant: Name
    component: Name
    strategy: Literal["restart", "scale", "redirect", "failover"]
    parameters: dict[str, str | int | float | bool]
    dry_run: bool
    requested_unix_us: UnixUs
    deadline_unix_us: UnixUs


class RecoveryAction(Record):
    """What was done, and whether it helped (`flowchain.recovery.actions.v1`)."""

    id: Id
    command: Id
    incident: Id
    tenant: Name
    component: Name
    strategy: Literal["restart", "scale", "redirect", "failover"]
    status: Literal["planned", "running", "succeeded", "failed", "rolled_back", "escalated"]
    revision: Count
    time_unix_us: UnixUs
    breaker: Literal["closed", "open", "half_open"] = "closed"
    detail: Annotated[str, Field(max_length=512)] = ""
    chain: OptionalName = ""
