"""Singulars of regular English plurals."""

from __future__ import annotations

import re

from app.cli.new_resource.fields import MistakeError

# The endings of which the singular is plain, and what takes their place. Others (-ves, -oes, -ses)
# are those of several singulars: leaves and archives, statuses and cases.
_REGULAR = (
    (re.compile(r"(?<=[a-z]{3}[b-df-hj-np-tv-xz])ies$"), "y"),
    (re.compile(r"(?<=ss)es$"), ""),
    (re.compile(r"(?<=x)es$|(?<=sh)es$|(?<=[tnr]ch)es$|(?<=[oe]ach)es$|(?<=eech)es$"), ""),
    (re.compile(r"(?<=[bcdfgjklmnpqrtwy]e)s$|(?<=[eu]e)s$"), ""),
    (re.compile(r"(?<=[b-df-hj-np-rtv-z])s$"), ""),
)
_IRREGULAR = {
    *("avalanches", "axes", "brownies", "calories", "collies", "cookies", "corps", "finesses"),
    *("genies", "goalies", "hoodies", "impasses", "lens", "mousses", "news", "pixies", "posses"),
    *("prairies", "rookies", "selfies", "smoothies", "species", "veggies", "zombies"),
}


def singular_of(plural: str) -> str:
    """Return the singular of a plainly regular plural; raise MistakeError for any other."""
    *first, last = plural.split("_")
    for ending, replacement in _REGULAR if last not in _IRREGULAR else ():
        singular = ending.sub(replacement, last)
        if singular != last:
            return "_".join([*first, singular])
    raise MistakeError(f"say what one of {plural!r} is called: --singular NAME")
