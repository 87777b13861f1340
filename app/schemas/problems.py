"""Error bodies (RFC 9457), as the API docs show them; `web/problems.py` writes them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """One defect of one input field."""

    field: str = Field(description="The name of the field.", examples=["email"])
    message: str = Field(
        description="What is wrong, in the language of the request.",
        examples=["The email address is not valid."],
    )
    type: str = Field(
        description="What is wrong, as a code that stays the same.", examples=["email_invalid"]
    )


class Problem(BaseModel):
    """An error. `code` is stable; `title` and `detail` follow `Accept-Language` (en, es)."""

    type: str = Field(description="A page that explains the error.", examples=["/errors/not_found"])
    title: str = Field(description="The kind of error, in few words.", examples=["Not found"])
    status: int = Field(description="The HTTP status.", examples=[404])
    detail: str = Field(description="What went wrong, in a sentence for users.")
    code: str = Field(
        description="The kind of error, as a code that stays the same.", examples=["not_found"]
    )
    instance: str = Field(description="The path that was asked for.")
    request_id: str = Field(description="The `X-Request-ID`, by which logs name the request.")
    error: str = Field(
        "",
        description="Of the token endpoints alone: the error code that OAuth2 clients read.",
        examples=["invalid_grant"],
    )
    error_description: str = Field(
        "", description="Of the token endpoints alone: what `detail` says, in English."
    )


class ValidationProblem(Problem):
    """An error of the input, with each of its defects."""

    errors: list[FieldProblem] = Field(description="Every defect of the input.")
