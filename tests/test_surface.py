"""What every response shows of the server, and what it never does: headers, hosts, bodies, docs."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from app.core.middleware import RETRY
from tests.support.apps import client_of
from tests.support.client import API, PASSWORD, Client
