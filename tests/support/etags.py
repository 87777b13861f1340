"""What the entity tags of posts are to be."""

from __future__ import annotations

import hashlib

import httpx2


def tag_shown(response: httpx2.Response, version: int) -> str:
    """Return the tag of a post that this response shows: its version, and a hash of the body."""
    assert response.json()["version"] == version
    return f'"{version}-{hashlib.sha256(response.content).hexdigest()[:32]}"'
