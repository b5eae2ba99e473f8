"""Credentials of flows: stored encrypted, listed without their values, and never given back."""

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from connectors.credentials import MAX_CHARACTERS, Vault, delete_credential, list_credentials, store_credential
from connectors.http import times
from connectors.http.parameters import NameInPath
from connectors.http.problems import COMMON, not_found
from connectors.http.scope import Administrator

router = APIRouter(prefix="/v1/flows/{flow}/credentials", tags=["flows"], responses=COMMON)


class CredentialIn(BaseModel):
    """A credential."""

    model_config = ConfigDict(extra="forbid")
    value: Annotated[SecretStr, Field(min_length=1, max_length=MAX_CHARACTERS)]
    description: Annotated[str, Field(max_length=512, pattern=r"^[^\x00]*$")] | None = Field(None, description="stays where left out")
    expires_at: times.Moment | None = None


class Credential(BaseModel):
    """What is known of a credential."""

    name: str
    description: str
    key_id: str = Field(description="under which key it is encrypted")
    created_by: str
    created_unix_us: int
    updated_unix_us: int
    rotated_unix_us: int | None
    expires_unix_us: int | None


@router.get("", summary="List a flow's credentials")
def list_(scope: Administrator, flow: NameInPath) -> list[Credential]:
    """Return what is known of the credentials, without their values."""
    with scope.database() as connection:
        return [_credential(row) for row in list_credentials(connection, flow)]


@router.put("/{name}", status_code=204, summary="Store a credential", response_class=Response)
def put(scope: Administrator, flow: NameInPath, name: NameInPath, body: CredentialIn) -> None:
    """Store a credential or a new value of it; doing it again changes nothing."""
    vault = Vault(scope.services.settings.credential_keys)
    with scope.database() as connection:
        store_credential(
            connection, vault, scope.tenant, flow, name, body.value, actor=scope.principal.id, description=body.description, expires_at=body.expires_at
        )


@router.delete("/{name}", status_code=204, summary="Delete a credential", response_class=Response)
def delete(scope: Administrator, flow: NameInPath, name: NameInPath) -> None:
    """Forget a credential."""
    with scope.database() as connection:
        if not delete_credential(connection, scope.tenant, flow, name):
            raise not_found(f"credential {name} of flow {flow}")


def _credential(row: dict[str, Any]) -> Credential:
    same = {name: row[name] for name in ("name", "description", "key_id", "created_by")}
    return Credential(**same, **{f"{name}_unix_us": times.unix_us(row[f"{name}_at"]) for name in ("created", "updated", "rotated", "expires")})
