"""Rules of the code as regular expressions of JSON Schema, for the API docs and generated clients.

They take what the code takes and refuse what it refuses, as far as a regular expression can tell,
and are written in what ECMA-262, with the flag `u` or without, and Python's `re` read alike: no
classes of Unicode, nothing beyond the basic plane. What only the code refuses (a text of nothing
but marks, a domain that cannot exist) is rare, and a 422 all the same.
"""

from __future__ import annotations

# What `app/core/single_line.py` refuses.
_CONTROLS = r"\u0000-\u001f\u007f-\u009f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"
_BLANKS = r"\u0020\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
# Blanks and line breaks are taken off both ends before anything is judged.
_END = rf"[\u0009-\u000d\u0085\u2028\u2029{_BLANKS}]*"
# Of what cannot be seen by itself, what people come across.
_INVISIBLE = (
    r"\u00ad\u034f\u0300-\u036f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200d\u2060-\u2065"
    r"\u2800\u3164\ue000-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffc\ufffe\uffff"
)
_ANY = f"[^{_CONTROLS}]"
_SOLID = f"[^{_CONTROLS}{_BLANKS}]"
_VISIBLE = f"[^{_CONTROLS}{_BLANKS}{_INVISIBLE}]"
_TWO = (
    f"(?:{_VISIBLE}{_ANY}*{_SOLID}|{_SOLID}{_ANY}*{_VISIBLE}"
    f"|{_SOLID}{_ANY}*{_VISIBLE}{_ANY}*{_SOLID})"
)

TEXT = r"^[^\u0000]*$"
# One line of which something can be seen. No two parts side by side take the same: what does not
# match is found out in one go.
LINE = f"^{_END}(?:[{_INVISIBLE}][{_BLANKS}{_INVISIBLE}]*)?{_VISIBLE}(?:{_ANY}*{_SOLID})?{_END}$"
# The same, of two characters or more.
LINE_OF_TWO = f"^{_END}{_TWO}{_END}$"
# The same as a line, with words that tabs may separate.
WORDS = (
    rf"^{_END}(?:[{_INVISIBLE}][\u0009{_BLANKS}{_INVISIBLE}]*)?{_VISIBLE}"
    rf"(?:(?:{_ANY}|\u0009)*{_SOLID})?{_END}$"
)
ROLE_NAME = rf"^{_END}\w[\w .:-]*[\w.:-]{_END}$"
MONTH_AND_DAY = r"(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
# Of the last century and this one.
BIRTH_DATE = rf"^(?:19|20)[0-9]{{2}}-{MONTH_AND_DAY}$"
_ATOM = r'[^\u0000-\u0020\u007f-\u00a0"(),.:;<>@\[\\\]]'
_LABEL = r"[^\u0000-\u002c\u002e\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00a0\u3002\uff0e\uff61]+"
EMAIL = rf"^{_END}{_ATOM}+(?:\.{_ATOM}+)*@{_LABEL}(?:[.\u3002\uff0e\uff61]{_LABEL})+{_END}$"


def digits(least: int, most: int) -> str:
    """Return the pattern of a text with so many digits, whatever stands between them."""
    return rf"^(?:[^0-9\u0000]*[0-9]){{{least},{most}}}[^0-9\u0000]*$"
