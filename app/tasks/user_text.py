"""What users have typed, as mails show it: text that no mail program makes a link of.

A client may register a link as its name, with the address of a stranger, and rows may be
older than the rules for names. This is the one place that puts users' text into mails.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from unicodedata import category as _category
from unicodedata import normalize

from app.core.single_line import BLANK, IGNORABLE
from app.models.outbox import Mail

# What stands between the parts of URLs and addresses, and what begins an encoded word (RFC 2047).
# Also seven digits in a row, which mail programs offer to dial.
_LIKE_A_LINK = re.compile(r"[/\\:@]|=\?|(?:\d\W{0,2}){7}")
# Joiners, variation selectors, and the tags of flags: without them emoji fall apart, and words of
# some scripts change their meaning.
_KEPT = re.compile("[\u200c\u200d\ufe00-\ufe0f\U000e0020-\U000e007f\U000e0100-\U000e01ef]")
# IDNA takes the first two for the dots of a domain, and compatibility normalisation knows its
# others; the rest end sentences in other scripts, so that people may take them for dots.
_DOTS = str.maketrans(
    dict.fromkeys("\u3002\uff61\u0589\u06d4\u0701\u0702\u1362\u166e\u1803\u1809\ua4ff", ".")
)
# To the same normalisation an ellipsis is three dots.
_ELLIPSES = str.maketrans("\u2025\u2026", "  ")
_ABBREVIATION = re.compile(r"(\w+)\.(?=(\w))")
_MAX_ABBREVIATION = 4
# `D.ª`, `M.º`: no letter of a domain follows.
_ORDINAL = re.compile(r"\.(?=[ªº](?!\w))")
_PLAIN_ADDRESS = re.compile(r"(?![^@]*www\.)[\w.+'-]+@[\w.-]+", re.IGNORECASE)
_PARTS_OF_ADDRESSES = re.compile(r"\s*([^\w\s+'-])\s*")


@dataclass(frozen=True)
class UserText:
    """The values of a mail that users have typed; None for what must not be shown."""

    name: str | None
    recipient: str | None
    new_email: str | None

    @classmethod
    def of(cls, mail: Mail) -> UserText:
        new_email = mail.values.get("new_email")
        return cls(
            name=shown_name(mail.values.get("name", "")),
            recipient=mail.recipient if _is_plain_address(mail.recipient) else None,
            new_email=new_email and shown_address(new_email),
        )


def shown_name(name: str) -> str | None:
    """Return a name on one line, without what cannot be seen; None when there is nothing to see,
    or a mail program could make a link of it."""
    line = _ABBREVIATION.sub(_spaced, _on_one_line(name))
    return None if not line or _is_like_a_link(line) else line


def shown_address(address: str) -> str:
    """Return an address; one whose local part looks like a URL in pieces, with spaces between."""
    if _is_plain_address(address):
        return address
    return _on_one_line(_PARTS_OF_ADDRESSES.sub(r" \1 ", address))


def _is_plain_address(address: str) -> bool:
    return bool(_PLAIN_ADDRESS.fullmatch(address))


def _on_one_line(text: str) -> str:
    """Return a text without line breaks, control characters and what cannot be seen."""
    kept = (_seen(character) for character in text)
    return " ".join("".join(kept).split())


def _seen(character: str) -> str:
    if BLANK.match(character) or _category(character)[0] == "Z":
        return " "
    if _KEPT.match(character):
        return character
    if IGNORABLE.match(character) or _category(character) == "Cf":
        return ""
    return " " if _category(character) in {"Cc", "Cs"} else character


def _spaced(found: re.Match[str]) -> str:
    """Return `J.R. García` as `J. R. García`: with a space behind its dot, nothing is a domain."""
    word, follower = found.groups()
    is_short = len(word) <= _MAX_ABBREVIATION and word[0].isupper()
    is_abbreviation = is_short and (len(word) == 1 or word[1:].islower()) and follower.isupper()
    return f"{word}. " if is_abbreviation else f"{word}."


def _is_like_a_link(line: str) -> bool:
    # As the resolver of a domain reads it: what is ignored left out, other scripts' signs
    # replaced by those of ASCII.
    bare = IGNORABLE.sub("", _ORDINAL.sub("", line))
    plain = normalize("NFKC", bare.translate(_ELLIPSES)).translate(_DOTS)
    if _LIKE_A_LINK.search(plain):
        return True
    # A letter, mark, digit or symbol directly behind a dot, whatever its script: `_` is none.
    return any(dot == "." and _category(behind)[0] in "LMNS" for dot, behind in pairwise(plain))
