"""The public keys, for servers that verify access tokens without asking this one."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from pydantic import Field

from app.schemas.base import ResponseModel
from app.web.dependencies import TokensDep
from app.web.strict_route import StrictRoute

router = APIRouter(tags=["operations"], route_class=StrictRoute)
_FOR_FIVE_MINUTES = "public, max-age=300"
Coordinate = Annotated[str, Field(description="32 bytes, in base64url.")]


class PublicKey(ResponseModel):
    """A public key (RFC 7517)."""

    kty: Annotated[Literal["EC"], Field(description="An elliptic curve.")]
    crv: Annotated[Literal["P-256"], Field(description="The curve.")]
    x: Coordinate
    y: Coordinate
    alg: Annotated[Literal["ES256"], Field(description="The algorithm of the signatures.")]
    use: Annotated[Literal["sig"], Field(description="The key is for signatures.")]
    kid: Annotated[str, Field(description="Names the key in a token's header (RFC 7638).")]


class KeySet(ResponseModel):
    """The public keys (RFC 7517)."""

    keys: Annotated[list[PublicKey], Field(description="Every key that tokens are signed with.")]


@router.get("/.well-known/jwks.json", response_model=KeySet)
async def list_keys(response: Response, tokens: TokensDep) -> dict[str, object]:
    """List the public keys.

    Return the keys (RFC 7517) that verify the signatures of access tokens. The list is empty
    while `TOKEN_ALGORITHM` is HS256, because only the server can verify those.

    A verifier asks again when it meets a `kid` that it does not know, and requires `iss`
    `cimiento`, `aud` `cimiento-api` and `typ` `access`.
    """
    response.headers["Cache-Control"] = _FOR_FIVE_MINUTES
    return {"keys": tokens.public_keys}
