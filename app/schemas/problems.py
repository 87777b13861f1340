"""Error bodies (RFC 9457), as the API docs show them; `core/problems.py` writes them."""

from __future__ import annotations

from pydantic import BaseModel, Field


class FieldProblem(BaseModel):
    """One defect of one input field."""

    field: str = Field(examples=["email"])
    message: str = Field(examples=["This is not an e-mail address."])
    type: str = Field(examples=["email_invalid"])


class Problem(BaseModel):
    """An error. `code` is stable; `title` and `detail` follow `Accept-Language` (en, es)."""

    type: str = Field(description="A page that explains the error.", examples=["/errors/not_found"])
    title: str = Field(examples=["Not found"])
    status: int = Field(examples=[404])
    detail: str
    code: str = Field(examples=["not_found"])
    instance: str = Field(description="The path that was asked for.")
    request_id: str


class ValidationProblem(Problem):
    """An error of the input, with each of its defects."""

    errors: list[FieldProblem]
