"""The words of a text, as searches compare them: the same on every kind of database.

A word is a run of letters and digits. Case, accents and other marks make no difference, nor do
compatible forms (Unicode NFKD): `CAFE` and `café` are one word. Words of fewer than MIN_LETTERS
letters are left out, of texts and of searches alike. Languages that put no spaces between words
(Chinese, Japanese, Thai) have their runs of letters as words: a search finds how one begins.

The full-text engines disagree on what a letter is, on which words to leave out and on how short
or long one may be, so each is handed words in lower-case ASCII that it takes as they are.
"""

from __future__ import annotations

import re
import unicodedata

MIN_LETTERS = 3
# MariaDB leaves out longer ones unless it is told otherwise (innodb_ft_max_token_size, 84).
MAX_LENGTH = 80
# In front of each: no word is on a list of stop words, and none too short.
_MARK = "w"
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
# Stands before what is no letter or digit of ASCII, in four digits to the base of 36, of which
# the first is never this; itself it is written twice. So the beginning of a word is written as
# the beginning of what is written for the word.
_ESCAPE = "x"


def index_words(*texts: str) -> str:
    """Return the words of texts, each once, in order, with spaces between: what is indexed."""
    return " ".join(sorted({word for text in texts for word in _written(text)}))


def search_words(search: str) -> tuple[str, ...]:
    """Return the beginnings of words that a text must have to be found, each once, in order."""
    return tuple(sorted(set(_written(search))))


def _written(text: str) -> list[str]:
    if text.isascii():
        words = _ASCII_WORD.findall(text.lower())
        return [
            (_MARK + word.replace(_ESCAPE, _ESCAPE * 2))[:MAX_LENGTH]
            for word in words
            if len(word) >= MIN_LETTERS
        ]
    return [
        (_MARK + "".join(map(_letter, word)))[:MAX_LENGTH]
        for word in _words(text)
        if len(word) >= MIN_LETTERS
    ]


def _words(text: str) -> list[str]:
    # Twice: folding case may make letters that have marks (`İ`).
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    letters = [
        each if each.isalnum() else " " for each in folded if unicodedata.category(each)[0] != "M"
    ]
    return "".join(letters).split()


def _letter(letter: str) -> str:
    if letter == _ESCAPE:
        return _ESCAPE * 2
    if letter.isascii():
        return letter
    code, digits = ord(letter), ""
    for _ in range(4):
        code, digit = divmod(code, 36)
        digits = _DIGITS[digit] + digits
    return _ESCAPE + digits
