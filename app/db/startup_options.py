"""What the `options` of a PostgreSQL URL ask of a session: `-c name=value`, as libpq reads them."""

from __future__ import annotations

import re

# A backslash keeps what follows it, a blank too.
_WORD = re.compile(r"(?:\\.|[^\\\s])+", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_SETTING = re.compile(r"([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)


def settings_in(options: str) -> dict[str, str]:
    """Return the settings that some options make, by lower-case names; the last of a name counts.

    Raise ValueError for any other option of a server: a pooler cannot pass it on.
    """
    words = [_ESCAPED.sub(r"\1", word) for word in _WORD.findall(options)]
    found = {}
    while words:
        word = words.pop(0)
        if word == "-c" and words:
            word = "-c" + words.pop(0)
        setting = _SETTING.fullmatch(word[2:]) if word.startswith(("-c", "--")) else None
        if setting is None:
            raise ValueError("options may hold nothing but settings, like -c search_path=app")
        name = setting[1].lower()
        found[name.replace("-", "_") if word.startswith("--") else name] = setting[2]
    return found
