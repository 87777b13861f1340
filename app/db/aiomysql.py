"""Import aiomysql also where the process runs as a user without a name.

aiomysql asks for one, and does not handle the error that Python 3.13 raises if there is none: the
user of a container (`runAsUser` in Kubernetes, any on OpenShift) has no line in /etc/passwd.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable
from importlib import import_module
from types import ModuleType


def imported() -> ModuleType:
    """Return the driver."""
    asked = getpass.getuser
    getpass.getuser = user_name
    try:
        return import_module("aiomysql")
    finally:
        getpass.getuser = asked


def user_name(ask: Callable[[], str] = getpass.getuser) -> str:
    """Return what the user of the process is called."""
    try:
        return ask()
    except (KeyError, OSError):
        return "unknown"
