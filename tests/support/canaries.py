"""What no response and no log line of any test may hold: the tests' own secrets."""

from __future__ import annotations

import logging
import re

import httpx2

from app.core.logging import JsonLines

PASSWORD = "Correct-Horse-7"
# One that nothing but a leak brings into a log.
CANARY = "Kiwi-Lantern-42"
# As random as production wants it.
SECRET = "tests-" + "b7Qx2Lm9Rv4Wt8Yc3Zk6Np1Hs5Gd0Fj"
# Hashes of passwords, and the second part of a signed token.
_SECRETS = re.compile("|".join([PASSWORD, CANARY, SECRET, r"\$argon2", r"\$2b\$", r"\.eyJ"]))
# Where tokens are handed out.
_TOKENS = ("/auth/login", "/auth/refresh")


def check_response(response: httpx2.Response) -> None:
    """Fail when a response, headers included, shows a secret."""
    headers = "\n".join(f"{name}: {value}" for name, value in response.headers.items())
    found = set(_SECRETS.findall(f"{headers}\n{response.text}"))
    if response.is_success and response.request.url.path.endswith(_TOKENS):
        found.discard(".eyJ")
    assert not found, "a response shows a secret"


class Watch(logging.Handler):
    """Looks at every line that anybody logs, as production would write it."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines())
        self.leaks: list[str] = []
        self.seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.seen += 1
        line = self.format(record)
        if _SECRETS.search(line):
            self.leaks.append(line)

    def take(self) -> list[str]:
        """The lines with secrets since the last call."""
        found, self.leaks = self.leaks, []
        return found


def watched_logs() -> Watch:
    """A watch over all that the process logs from level INFO on."""
    watch, root = Watch(), logging.getLogger()
    root.addHandler(watch)
    root.setLevel(logging.INFO)
    # The tests' own client writes down the URLs it asks for, secrets and all.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    return watch
