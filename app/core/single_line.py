"""Single-line text: which characters it may hold, and which of them can be seen.

The rule for names, titles, role names and tags (`app/schemas/base.py`); what mails show of a
user's text relies on the same classes of characters (`app/tasks/user_text.py`).
"""

from __future__ import annotations

import re
import unicodedata

# Unicode's property Default_Ignorable_Code_Point: shown as nothing, or only change what they
# stand beside (joiners, variation selectors, tags, fillers).
IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
# Letters and symbols by their category, with an empty glyph as wide as a space or wider.
BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0\ufffc\U00013441\U00013442\U0001d159]")
# Control characters, among them every line break of ASCII and U+0085; the separators of lines
# and paragraphs; what embeds, overrides, isolates or marks the direction of writing
# (Bidi_Control), and the deprecated formats behind it.
_REFUSED = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f]")
_NONCHARACTERS_OF_A_PLANE = 0xFFFE


def is_single_line(text: str) -> bool:
    """Return whether a text stays on one line, in the direction of its letters."""
    return (text.isascii() and text.isprintable()) or not _REFUSED.search(text)


def has_visible(text: str) -> bool:
    """Return whether any character of a text can be seen by itself."""
    # The first character nearly always is one.
    return "!" <= text[:1] <= "~" or any(map(_is_visible, text))


def _is_visible(character: str) -> bool:
    category = unicodedata.category(character)
    # Marks need a letter to stand on; characters of private use have no agreed glyph.
    if category[0] in "MZ" or category in {"Cc", "Cf", "Co", "Cs"}:
        return False
    if IGNORABLE.match(character) or BLANK.match(character):
        return False
    return not (category == "Cn" and _is_noncharacter(ord(character)))


def _is_noncharacter(code: int) -> bool:
    # Other unassigned code points count as visible: later versions of Unicode put emoji there.
    is_last = code & _NONCHARACTERS_OF_A_PLANE == _NONCHARACTERS_OF_A_PLANE
    return is_last or 0xFDD0 <= code <= 0xFDEF  # noqa: PLR2004 Unicode §23.7
