"""What all records share: strictness, bounded field types, and the one way to encode them."""

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

YEAR_2100_UNIX_US = 4_102_444_800_000_000
"""Upper bound of every time: catches seconds and nanoseconds given as microseconds from the future side."""

WITHOUT_CONTROLS = r"^[^\x00-\x1f\x7f]*$"
"""Names and ids hold no control characters of ASCII: keys of state are parts joined by U+001F, PostgreSQL takes no NUL,
and a line break in a name forges lines of a log. Everything else is allowed: C1 controls, which texts decoded with the wrong
character set hold, separators and direction marks break nothing here, and names outside of ASCII need some of them."""

Name = Annotated[str, Field(min_length=1, max_length=128, pattern=WITHOUT_CONTROLS)]
"""A tenant, chain, step or component."""
OptionalName = Annotated[str, Field(max_length=128, pattern=WITHOUT_CONTROLS)]
"""A name, or "" where a record speaks of all of them."""
Id = Annotated[str, Field(min_length=1, max_length=64, pattern=WITHOUT_CONTROLS)]
TopicName = Annotated[str, Field(min_length=1, max_length=249, pattern=WITHOUT_CONTROLS)]
"""A Kafka topic of anybody."""
UnixUs = Annotated[int, Field(ge=0, le=YEAR_2100_UNIX_US)]
"""Event time: microseconds since 1970-01-01 UTC."""
DurationUs = Annotated[int, Field(ge=0, le=YEAR_2100_UNIX_US)]
Count = Annotated[int, Field(ge=0)]
Ratio = Annotated[float, Field(ge=0.0, le=1.0)]


class Record(BaseModel):
    """Base of every record: closed on its data, immutable, no type coercion."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def encode(self) -> bytes:
        """Return the record as it stands on a topic: UTF-8 JSON without the fields that are None."""
        return orjson.dumps(self.model_dump(mode="json", exclude_none=True))

    @classmethod
    def decode(cls, value: bytes) -> Any:
        """Return the record of a topic's value; raises pydantic.ValidationError naming the field."""
        return cls.model_validate_json(value)
