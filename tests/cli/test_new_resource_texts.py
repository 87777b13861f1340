"""What a generated resource says: articles, examples, the description of its tag, line lengths."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from app.cli.new_resource import samples, texts
from app.cli.new_resource.fields import field_of
from app.cli.new_resource.plan import Plan, article, plan_of

ROOT = Path(__file__).parents[2]


def planned(*fields: str, owned: bool = False, public: bool = False, parent: str = "") -> Plan:
    read = [field_of(each) for each in fields]
    return plan_of(ROOT, "spare_entries", read, owned=owned, public=public, nested_under=parent)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ("an", "apple event hour heir honest honor umbrella update upload usher onion uninvited"),
        ("a", "user unicorn unit university european one usage utility house blog"),
    ],
)
def test_articles_follow_the_pronunciation(expected: str, words: str) -> None:
    assert {word: article(word) for word in words.split()} == dict.fromkeys(words.split(), expected)


def test_fields_are_described_as_what_they_are() -> None:
    plan = planned(
        *("title:str(100)", "code:str(3)", "starts_at:datetime", "day:date", "is_open:bool"),
        *("public:bool", "post:ref(posts)"),
    )
    assert [texts.described(field) for field in plan.fields] == [
        "The title.",
        "The code.",
        "Date and time: `starts_at`.",
        "Date: `day`.",
        "Whether it is open.",
        "Whether it is public.",
        "The `id` of the post.",
    ]
    examples = [texts.example(plan, field) for field in plan.fields[:2]]
    assert examples == ["Title of the spare entry", "Cod"]


def test_the_tag_says_who_reads_and_who_writes() -> None:
    written = "written by holders of `spare_entries:write`."
    described = {
        texts.tag(planned("size:int")): f"Spare entries, read by users and {written}",
        texts.tag(planned("size:int", public=True, owned=True)): (
            "Spare entries, read by everyone and written by their authors."
        ),
        texts.tag(planned("size:int", owned=True, parent="posts")): (
            "Spare entries of posts, read by users who may read the post and written by their"
            " authors."
        ),
    }
    for literal, expected in described.items():
        assert ast.literal_eval(literal) == expected


def test_long_texts_are_wrapped() -> None:
    text = " ".join(["words"] * 40)
    assert max(map(len, texts.literal(text).split('" "'))) <= 72
    assert max(map(len, texts.paragraph(text).splitlines())) <= 100


def test_rows_tell_every_sort_from_the_order_of_ids() -> None:
    fields = [f"{letter}:str(9)" for letter in "abcdef"] + ["is_on:bool", "state:enum(x|y)"]
    plan = planned(*fields)
    bodies = [ast.literal_eval(row) for row in samples.rows(plan)]
    for name in "abcdef":
        order = sorted(range(3), key=lambda row: bodies[row][name])
        assert order not in ([0, 1, 2], [2, 1, 0])
    for name in ("is_on", "state"):
        assert len({each[name] for each in bodies}) == 2
