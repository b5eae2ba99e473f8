"""Chain definitions: the declared contract that executions are held to (`flowchain.definitions.v1`, compacted)."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from schemas.base import Name, Record, UnixUs

DurationMs = Annotated[float, Field(gt=0, le=86_400_000.0)]


class ChainStep(Record):
    """One declared step."""

    name: Name
    component: Name
    after: tuple[Name, ...] | None = Field(
        None, description="steps that must have ended before; the step before it in the list where left out"
    )
    expected_duration_ms: DurationMs | None = Field(None, description="longer is step.slow")
    deadline_ms: DurationMs | None = Field(
        None, description="at most so long after the steps before it ended; later is step.missing"
    )
    optional: bool = False
    repeated: bool = Field(False, description="may run several times in one execution")
    input: Name | None = None
    output: Name | None = None


class ChainDefinition(Record):
    """A chain: its steps and what is expected of them."""

    name: Name
    version: Annotated[str, Field(min_length=1, max_length=64)] = "1"
    tenant: Name | None = Field(None, description="whose chain it is; every tenant's where left out")
    description: Annotated[str, Field(max_length=1024)] = ""
    steps: Annotated[tuple[ChainStep, ...], Field(min_length=1, max_length=256)]
    effective_from_unix_us: UnixUs = Field(0, description="executions that began earlier are not held to it")

    @model_validator(mode="after")
    def _steps_form_an_acyclic_order(self) -> Self:
        seen: set[str] = set()
        for step in self.steps:
            if step.name in seen:
                raise ValueError(f"step {step.name!r} is defined twice")
            for name in step.after or ():
                if name not in seen:
                    raise ValueError(f"step {step.name!r} comes after {name!r}, which is not defined before it")
            seen.add(step.name)
        return self
