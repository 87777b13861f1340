"""How hard a secret is to guess, in bits: the shortest way to describe it by what is tried first.

A description consists of single characters, words from frequency lists, reversed or not, and
parts that stood there before, as they were or shifted (`abcdefgh` and `1qaz2wsx` are steps that
repeat). The text that hexadecimal or base64 hides is described as well. Random text has no short
description; what a person thought up, or a short pattern repeated, has one.
"""

from __future__ import annotations

import math
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import pairwise

from app.core.passwords import ranked_words

MIN_SECRET_BYTES = 32
# 32 random hexadecimal digits, which hold 128 bits: of 60,000 the least was 96, ever seen 91.8.
# What the tests know to be guessable is estimated at 84 at most.
MIN_SECRET_BITS = 86
# The time grows with the cube of it.
_WINDOW = 96
# What comes later is not looked at.
_WINDOWS = 8
_SHORTEST_PART = 3
# To say which kind of part comes next.
_KIND_BITS = 2.0
_BYTE_BITS = 8.0
_SEPARATORS = " -_./,:+"
_SEPARATOR_BITS = 1.0
# Digits for letters, and accents; nothing that chance makes of ASCII has these.
_LEET = str.maketrans("4@301!5$7áéíóúü", "aaeoiisstaeiouu")
_KEYBOARD = ("1234567890-=", "qwertyuiop[]", "asdfghjkl;'", "zxcvbnm,./")
_ROW_WIDTH = 100
_KEYS = {
    key: number * _ROW_WIDTH + column
    for number, row in enumerate(_KEYBOARD, start=1)
    for column, key in enumerate(row)
}
# On paper for everybody: the secrets of the tutorials that most projects begin with.
_PUBLISHED = {
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "a-string-secret-at-least-256-bits-long",
}


def is_guessable(secret: str) -> bool:
    """Return whether a secret is too short, or too regular, to be random."""
    return len(secret.encode()) < MIN_SECRET_BYTES or guess_bits(secret) < MIN_SECRET_BITS


def guess_bits(secret: str) -> float:
    """Return an estimate, from below, of the bits an attacker has to guess."""
    if secret.casefold() in _PUBLISHED:
        return 0.0
    found = [_text_bits(secret)]
    for decoded in _decodings(secret):
        if decoded.isascii() and decoded.isprintable():
            found.append(_text_bits(decoded))
        else:
            found.append(_bits(decoded, literal_bits=_BYTE_BITS))
    return min(found)


def _text_bits(text: str) -> float:
    return _bits(text, literal_bits=math.log2(max(len(set(text)), 1)))


def _decodings(secret: str) -> Iterator[str]:
    """Yield what the secret may be the encoded form of, a character for each byte."""
    with suppress(ValueError):
        yield bytes.fromhex(secret).decode("latin-1")
    bare = secret.translate(str.maketrans("-_", "+/")).rstrip("=")
    with suppress(ValueError):
        yield b64decode(bare + "=" * (-len(bare) % 4), validate=True).decode("latin-1")


def _bits(text: str, *, literal_bits: float) -> float:
    """Return the bits of the best window: what is guessable beside it takes none away."""
    starts = range(0, max(len(text), 1), _WINDOW)[:_WINDOWS]
    windows = {text[start : start + _WINDOW] for start in starts}
    return max(_window_bits(window, literal_bits) for window in windows)


def _window_bits(text: str, literal_bits: float) -> float:
    """Return the bits of the cheapest way from the first character to the last, part by part."""
    # Character by character: the whole text's may be longer than the text.
    folded = "".join(character.lower()[:1] for character in text)
    # Exact repeats cost nothing for their start, shifted ones name its character.
    echoes = [
        (_longest_echoes(folded), 0, 0.0),
        (_longest_echoes(_steps([ord(each) for each in folded])), 1, literal_bits),
        (_longest_echoes(_steps([_KEYS.get(each) for each in folded])), 1, literal_bits),
    ]
    cheapest = [0.0, *[math.inf] * len(text)]
    for start, so_far in enumerate(cheapest[:-1]):
        # Written while it is read: the next ones are improved from here.
        so_far = cheapest[start]  # noqa: PLW2901 see above
        _improve(cheapest, start + 1, so_far + literal_bits)
        for longest, extra, start_bits in echoes:
            known = longest[start] + extra if start < len(longest) else 0
            for length in range(_SHORTEST_PART, known + 1):
                cost = _KIND_BITS + start_bits + math.log2(start + 1) + math.log2(length)
                cost += _case_bits(text[start : start + length])
                _improve(cheapest, start + length, so_far + cost)
        for length, cost in _words_at(folded, start):
            case = _case_bits(text[start : start + length])
            _improve(cheapest, start + length, so_far + cost + case)
    return cheapest[-1]


def _improve(cheapest: list[float], end: int, cost: float) -> None:
    cheapest[end] = min(cheapest[end], cost)


def _steps(places: Sequence[int | None]) -> list[object]:
    """Return the step from each place to the next; a step that leads nowhere is like no other."""
    return [
        object() if here is None or there is None else there - here
        for here, there in pairwise(places)
    ]


def _longest_echoes(symbols: Sequence[object]) -> list[int]:
    """Return, for each start, how many symbols from there on stood there before, in a row."""
    count = len(symbols)
    longest = [0] * count
    below = [0] * (count + 1)
    for late in range(count - 1, -1, -1):
        row = [0] * (count + 1)
        for early in range(late):
            if symbols[early] == symbols[late]:
                row[early] = below[early + 1] + 1
        longest[late] = max(row)
        below = row
    return longest


def _words_at(folded: str, start: int) -> Iterator[tuple[int, float]]:
    """Yield the words that begin here, plain or with digits for letters, after a separator or none:
    length and bits."""
    ranks, longest = _ranks()
    skipped = 1 if folded[start] in _SEPARATORS else 0
    plain = folded[start + skipped : start + skipped + longest]
    before = _KIND_BITS + skipped * _SEPARATOR_BITS
    for text, extra in ((plain, 0.0), (plain.translate(_LEET), 2.0)):
        for length in range(_SHORTEST_PART - skipped, len(text) + 1):
            if rank := ranks.get(text[:length]):
                yield skipped + length, before + extra + math.log2(rank)


def _case_bits(part: str) -> float:
    """Return the bits that say which letters are capitals; the usual ways cost little."""
    letters = [character for character in part if character.isalpha()]
    capitals = sum(character.isupper() for character in letters)
    if not capitals:
        return 0.0
    if capitals == len(letters) or (capitals == 1 and letters[0].isupper()):
        return 1.0
    return math.log2(math.comb(len(letters), capitals)) + 1


@cache
def _ranks() -> tuple[dict[str, int], int]:
    ranks = ranked_words()
    for word, rank in [*ranks.items()]:
        # As many again: to say that it is reversed costs a bit.
        ranks.setdefault(word[::-1], 2 * rank)
    return ranks, max(map(len, ranks))
