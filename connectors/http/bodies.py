"""Bodies that are records of the contract, validated as JSON: what FastAPI hands on, Python's lists, is not strictly a tuple."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, TypeAdapter, ValidationError

from schemas.definitions import ChainDefinition

ONE: TypeAdapter[ChainDefinition] = TypeAdapter(ChainDefinition)
MAX_DEFINITIONS = 256
MANY: TypeAdapter[list[ChainDefinition]] = TypeAdapter(Annotated[list[ChainDefinition], Field(min_length=1, max_length=MAX_DEFINITIONS)])
_SCHEMA = {"$ref": "#/components/schemas/ChainDefinition"}


def _described(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


DEFINITION_BODY = _described(_SCHEMA)
DEFINITIONS_BODY = _described({"type": "array", "items": _SCHEMA, "minItems": 1, "maxItems": MAX_DEFINITIONS})
"""What the OpenAPI document says of such bodies."""


def _read(adapter: TypeAdapter[Any]) -> Callable[[Request], Awaitable[Any]]:
    async def read(request: Request) -> Any:
        try:
            return adapter.validate_json(await request.body())
        except ValidationError as error:
            raise RequestValidationError([{**found, "loc": ("body", *found["loc"])} for found in error.errors()]) from error

    return read


OneDefinition = Annotated[ChainDefinition, Depends(_read(ONE))]
ManyDefinitions = Annotated[list[ChainDefinition], Depends(_read(MANY))]
