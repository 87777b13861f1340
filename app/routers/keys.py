"""The public keys, for whoever verifies access tokens without asking us."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from app.routers.bodies import StrictRoute
from app.routers.deps import TokensDep
from app.schemas.base import Output

router = APIRouter(tags=["operations"], route_class=StrictRoute)
_FOR_FIVE_MINUTES = "public, max-age=300"
Coordinate = Annotated[str, Field(description="32 bytes, in base64url.")]


class PublicKey(Output):
    kty: Literal["EC"]
    crv: Literal["P-256"]
    x: Coordinate
    y: Coordinate
    alg: Literal["ES256"]
    use: Literal["sig"]
    kid: Annotated[str, Field(description="Names the key in a token's header (RFC 7638).")]


class KeySet(Output):
    keys: list[PublicKey]


@router.get("/.well-known/jwks.json", response_model=KeySet)
async def list_keys(response: Response, tokens: TokensDep) -> dict[str, object]:
    """The keys that access tokens are signed with (RFC 7517); none while `TOKEN_ALGORITHM` is
    HS256, as only the server can verify those.

    Verifiers look for a `kid` they do not know here again, and demand `iss` `cimiento`, `aud`
    `cimiento-api` and `typ` `access`.
    """
    response.headers["Cache-Control"] = _FOR_FIVE_MINUTES
    return {"keys": tokens.public_keys}
