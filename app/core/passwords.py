"""Which passwords are good enough: two policies, common passwords, and nothing of one's own.

The common passwords come from the frequency lists of the zxcvbn library, compared without
case and without a short tail of digits and signs (`Dragon2024!` is as common as `dragon`),
and from a list of Spanish ones beside this file's texts.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path

MAX_PASSWORD = 128
_SPANISH = Path(__file__).parent.parent / "locales" / "common_passwords_es.txt"
# Of texts, the most frequent first; without accents.
_SPANISH_WORDS = _SPANISH.with_name("frequent_words_es.txt")
_SITE_WORDS = ("cimiento",)
# Everybody can read them in our README, our documentation and the examples of the API docs.
_PUBLISHED = ("Correct-Horse-7", "Correct-Horse-7-Battery", "Look-At-This-1")
_LONGEST_TAIL = 5
_SHORTEST_STEM = 4
_TAIL = "0123456789!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~¡¿ "


class Policy(StrEnum):
    """`classic`: at least 8, an upper-case letter, a digit. `nist`: at least 15, no composition."""

    classic = "classic"
    nist = "nist"


MIN_LENGTH = {Policy.classic: 8, Policy.nist: 15}


def normal_form(password: str) -> str:
    """Return what is hashed and compared: Unicode's NFKC (NIST SP 800-63B §3.1.1.2). Keyboards
    differ in how they compose `ñ`; people see no difference."""
    return unicodedata.normalize("NFKC", password)


def weaknesses(password: str, policy: Policy, email: str, name: str = "") -> list[str]:
    """Return why a password is refused, as error types of the catalogue; none if it is good.

    `password` is taken as typed, in its normal form: never stripped, never shortened.
    """
    found = []
    form = normal_form(password)
    # One character may become eighteen.
    if min(len(password), len(form)) < MIN_LENGTH[policy]:
        found.append("password_too_short")
    if len(password) > MAX_PASSWORD:
        found.append("password_too_long")
    if policy is Policy.classic:
        if not any(character.isupper() for character in form):
            found.append("password_no_uppercase")
        if not any(character.isdigit() for character in form):
            found.append("password_no_digit")
    if len(password) <= MAX_PASSWORD and is_common(password):
        found.append("password_common")
    if _is_own(password, email, name):
        found.append("password_personal")
    return found


def is_common(password: str) -> bool:
    """Return whether the password, or the word it decorates, is among the ones tried first."""
    common = _common_passwords()
    return any(stem in common for stem in _stems(_fold(password), _LONGEST_TAIL))


def is_published(password: str) -> bool:
    """Return whether the password stands in our own documentation, decorated or not."""
    published = {stem for each in _PUBLISHED for stem in _undecorated(each)}
    return not published.isdisjoint(_undecorated(password))


def _undecorated(password: str) -> set[str]:
    """Return a password, and what is left of it without all of its tail of digits and signs."""
    folded = _fold(password)
    return {folded, folded.rstrip(_TAIL)} - {""}


def _is_own(password: str, email: str, name: str) -> bool:
    folded = _fold(password)
    local_part = email.partition("@")[0]
    own = {_fold(email), _fold(local_part), _fold(name), _fold(name.replace(" ", ""))} - {""}
    return any(stem in own for stem in _stems(folded, len(folded)))


def _stems(folded: str, longest_tail: int) -> Iterator[str]:
    """Yield a password, and what is left of it without ever more of its tail of digits and signs.

    Step by step, as the word may end in digits itself: `abc1231!` is `abc123` decorated.
    """
    yield folded
    shortest = max(len(folded) - longest_tail, _SHORTEST_STEM, len(folded.rstrip(_TAIL)))
    for end in range(len(folded) - 1, shortest - 1, -1):
        yield folded[:end]


def _fold(value: str) -> str:
    return normal_form(value).casefold()


def ranked_words() -> dict[str, int]:
    """Return every word of the frequency lists, common passwords and Spanish words among them, with
    its best place: 1 is tried first. Each call builds it again."""
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 see `_common_passwords`

    spanish = [each.read_text(encoding="utf-8").split() for each in (_SPANISH, _SPANISH_WORDS)]
    ranks: dict[str, int] = {}
    for words in (*FREQUENCY_LISTS.values(), *spanish, _SITE_WORDS):
        for rank, word in enumerate(words, start=1):
            ranks[word] = min(rank, ranks.get(word, rank))
    return ranks


@cache
def _common_passwords() -> frozenset[str]:
    # Imported at first use: the word lists cost 0.1 s and a few MiB, not needed at start.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 see above

    words = {_fold(word) for word in FREQUENCY_LISTS["passwords"]}
    words |= {_fold(word) for word in _SPANISH.read_text(encoding="utf-8").split()}
    return frozenset(words | set(_SITE_WORDS))
