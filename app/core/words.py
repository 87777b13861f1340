"""The words of a text, as searches compare them: the same on every kind of database.

A word is a run of letters and digits. Case, accents and other marks make no difference, nor do
compatible forms (Unicode NFKD): `CAFE` and `café` are one word. Words of fewer than MIN_LETTERS
letters are left out, of texts and of searches alike. Languages that put no spaces between words
(Chinese, Japanese, Thai) have their runs of letters as words: a search finds how one begins. Of one
row the first MAX_WORDS different words are kept: what a text costs has an end.

The full-text engines disagree on what a letter is, on which words to leave out and on how short
or long one may be, so each is handed words in lower-case ASCII that it takes as they are.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import islice

MIN_LETTERS = 3
# No more than PostgreSQL has room for in one tsvector (1 MiB), and than is written in a moment.
MAX_WORDS = 5_000
# MariaDB leaves out longer ones unless configured otherwise (innodb_ft_max_token_size, 84).
MAX_LENGTH = 80
# In front of each: no word is on a list of stop words, and none too short.
_MARK = "w"
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Stands before what is no letter or digit of ASCII, in four digits to the base of 36, of which
# the first is never this; itself it is written twice. So the beginning of a word is written as
# the beginning of what is written for the word.
_ESCAPE = "x"
_WRITTEN = re.compile(rf"\b(?:[0-9a-wyz]|xx|x[0-9a-n][0-9a-z]{{3}}){{{MIN_LETTERS},}}\b")
_MAX_REMEMBERED = 4_096


class _Letters(dict[int, str]):
    """How each character is written, as `str.translate` asks for it; remembered, as nearly all
    texts are of a few."""

    def __missing__(self, code: int) -> str:
        if len(self) >= _MAX_REMEMBERED:
            self.clear()
        # Each by itself: putting the marks of a whole text in order takes the square of their
        # number. Twice, as folding case may make letters that have marks (`İ`).
        folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", chr(code)).casefold())
        written = self[code] = "".join(map(_letter, folded))
        return written


_LETTERS = _Letters()


def index_words(*texts: str) -> str:
    """Return the words of texts, each once, in order, with spaces between: what is indexed."""
    found: dict[str, None] = {}
    for text in texts:
        for word in _WRITTEN.finditer(_written(text)):
            found[_cut(word[0])] = None
            if len(found) == MAX_WORDS:
                break
    return " ".join(sorted(islice(found, MAX_WORDS)))


def search_words(search: str) -> tuple[str, ...]:
    """Return the beginnings of words that a text must have to be found, each once, in order."""
    return tuple(sorted({_cut(word) for word in _WRITTEN.findall(_written(search))}))


def _cut(word: str) -> str:
    return (_MARK + word)[:MAX_LENGTH]


def _written(text: str) -> str:
    """Return a text in ASCII, with spaces for all that is in no word."""
    return text.translate(_LETTERS)


def _letter(letter: str) -> str:
    if unicodedata.category(letter)[0] == "M":
        return ""
    if not letter.isalnum():
        return " "
    if letter == _ESCAPE:
        return _ESCAPE * 2
    if letter.isascii():
        return letter
    code, digits = ord(letter), ""
    for _ in range(4):
        code, digit = divmod(code, 36)
        digits = _DIGITS[digit] + digits
    return _ESCAPE + digits
