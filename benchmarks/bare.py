"""The anchor: the least an app on this stack can do. Every result is a share of its speed."""

from __future__ import annotations

from fastapi import FastAPI

app = FastAPI()


# Without a response model, as in the framework's own first example.
@app.get("/", response_model=None)
async def hello() -> dict[str, str]:
    """A small body that is always the same."""
    return {"message": "Hello, world"}
