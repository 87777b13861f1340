"""`.env`: read as shells and Docker Compose read it, and refused where it would be misread.

What stands in single quotes is taken as it is; elsewhere `${NAME}` is replaced. python-dotenv
replaces it everywhere, and goes on behind a line that it does not understand.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream
from dotenv.variables import parse_variables
from pydantic_settings import DotEnvSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

_SINGLE_QUOTED = re.compile(r"[^=]*=\s*'")
_REFERRED = re.compile(r"\$\{?([A-Za-z_]\w*)")
# By difflib's measure: SMTP_USER is taken for SMTP_USERNAME, REDIS_PASSWORD for nothing; and
# TRUSTED_HOST is, but TEST_DATABASE_URL is not, though both hold a setting's name.
# And word by word, so that DATABASE_USER is another program's.
_LIKELY, _CERTAIN, _SAME_WORD = 0.75, 0.9, 0.6


class DotenvError(ValueError):
    """`.env` cannot be read as it was meant; the text names the file and the line."""


class DotenvSource(DotEnvSettingsSource):
    """The settings of `.env`; raises DotenvError where it cannot be read."""

    def _read_env_files(self) -> Mapping[str, str | None]:
        # What a container engine makes in place of a file that is not there would be skipped.
        if isinstance(self.env_file, str) and Path(self.env_file).is_dir():
            raise DotenvError(f"{self.env_file} is a folder: it has to be a file")
        return super()._read_env_files()

    def _read_env_file(self, file_path: Path) -> Mapping[str, str | None]:
        text = _text(file_path)
        values = _values(text, file_path.name)
        _refuse_misspelt(values, self.settings_cls.model_fields, text, file_path.name)
        return parse_env_vars(
            values, self.case_sensitive, self.env_ignore_empty, self.env_parse_none_str
        )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DotenvError(f"{path.name} is not UTF-8") from None
    except OSError as error:
        raise DotenvError(f"{path.name} cannot be read: {error.strerror}") from None


def _values(text: str, name: str) -> dict[str, str | None]:
    """Return the values of a file; `${NAME}` in them is one from above, else the environment's."""
    found: dict[str, str | None] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error or "\0" in binding.original.string:
            raise DotenvError(f"{name}, line {_line(binding)}, is not NAME=value")
        if binding.key is not None:
            found[binding.key] = _value(binding, found)
    return found


def _line(binding: Binding) -> int:
    """Return the number of the line; what is before it in the same text is empty lines."""
    text = binding.original.string
    return binding.original.line + text[: len(text) - len(text.lstrip())].count("\n")


def _value(binding: Binding, before: Mapping[str, str | None]) -> str | None:
    if binding.value is None or _SINGLE_QUOTED.match(binding.original.string):
        return binding.value
    known = {**os.environ, **before}
    return "".join(atom.resolve(known) for atom in parse_variables(binding.value))


def _refuse_misspelt(
    names: Iterable[str], known: Collection[str], text: str, file_name: str
) -> None:
    """Raise DotenvError for a name that is nearly, but not quite, that of a setting.

    Other programs' names may stand in the file too, and names that its own values refer to.
    """
    referred = {*_REFERRED.findall(text)}
    wrong = [
        f"{name} ({nearest.upper()}?)"
        for name in names
        if name not in referred and (nearest := _misspelt(name.lower(), known))
    ]
    if wrong:
        raise DotenvError(f"{file_name} sets what is no setting: {', '.join(wrong)}")


def _misspelt(name: str, known: Collection[str]) -> str | None:
    """Return the setting that a name was probably meant to be; None if it is one, or like none."""
    if name in known:
        return None
    is_longer = any(_is_part(each, name) for each in known)
    likeness = _CERTAIN if is_longer else _LIKELY
    name = re.sub(r"\W", "_", name)
    nearest = get_close_matches(name, known, n=1, cutoff=likeness)
    return nearest[0] if nearest and _may_be(name, nearest[0]) else None


def _may_be(name: str, setting: str) -> bool:
    """Return whether each word of a name may have been meant to be the setting's."""
    if name.count("_") != setting.count("_"):
        return True
    pairs = zip(name.split("_"), setting.split("_"), strict=True)
    return all(SequenceMatcher(None, *pair).ratio() >= _SAME_WORD for pair in pairs)


def _is_part(setting: str, name: str) -> bool:
    """Return whether a name is a setting's with words before or behind: another program's."""
    return name.startswith(f"{setting}_") or name.endswith(f"_{setting}")
