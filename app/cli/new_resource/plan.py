"""What is to be written for a new resource: its names, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from app.cli.new_resource.document import Document
from app.cli.new_resource.fields import Field, Kind, MistakeError, camel, require_name
from app.cli.new_resource.plurals import singular_of
from app.models import Base
from app.models.base import SoftDelete

LAYERS = ("models", "schemas", "crud", "routers")
_MAX_IDENTIFIER = 60  # of the databases: PostgreSQL cuts a longer one
# A reference to one would disclose to any caller that it exists.
_NOT_FOR_EVERYBODY = {"Role"}
_PLAIN = re.compile(r"[\w -]*")
# `hour` and `umbrella`, but not `user`, `unicorn`, `european` and `one`.
_VOWEL_SOUND = re.compile(
    r"heir|hono|hones|hour|[ai]|e(?!u|w)|o(?!ne\b|nce\b)"
    r"|u(?!ni(?!n|m|d)|s[aeu]|t[eio]|r[aei]|bi|k|\b)"
)


@dataclass(frozen=True)
class Other:
    """A resource that rows point to."""

    plural: str
    singular: str
    class_name: str

    @property
    def column(self) -> str:
        """Return the name of a column that points to it."""
        return f"{self.singular}_id"

    @property
    def mark(self) -> str:
        """Return the name of the column that marks rows that went to the trash with it."""
        return f"deleted_with_{self.singular}"

    @property
    def words(self) -> str:
        """Return what many are called in a sentence."""
        return self.plural.replace("_", " ")

    @property
    def word(self) -> str:
        """Return what one is called in a sentence."""
        return self.singular.replace("_", " ")

    @property
    def a(self) -> str:
        """Return the article of `word`."""
        return article(self.word)

    @property
    def is_posts(self) -> bool:
        """Return whether it is posts, of which callers see some."""
        return self.plural == "posts"


@dataclass(frozen=True)
class PageIndex:
    """An index that rows are found by."""

    columns: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Plan:
    """A new resource."""

    plural: str
    singular: str
    fields: tuple[Field, ...]
    revision: str
    after: str
    owned: bool = False
    public: bool = False
    parent: Other | None = None
    others: tuple[tuple[Field, Other], ...] = ()
    spanish: str = ""

    @property
    def class_name(self) -> str:
        """Return the name of the model and of the schema."""
        return camel(self.singular)

    @property
    def words(self) -> str:
        """Return what many are called in a sentence."""
        return self.plural.replace("_", " ")

    @property
    def word(self) -> str:
        """Return what one is called in a sentence."""
        return self.singular.replace("_", " ")

    @property
    def a(self) -> str:
        """Return the article of `word`."""
        return article(self.word)

    @property
    def path(self) -> str:
        """Return the path of the collection, without the prefix of the API."""
        own = self.plural.replace("_", "-")
        if self.parent is None:
            return f"/{own}"
        return f"/{self.parent.plural.replace('_', '-')}/{{{self.parent.column}}}/{own}"

    @property
    def is_seen_by_caller(self) -> bool:
        """Return whether it depends on the caller which rows are there."""
        return self.parent is not None and self.parent.is_posts

    @property
    def changeable(self) -> list[Field]:
        """Return the fields that can be changed: all but those that point to other rows."""
        return [field for field in self.fields if field.kind is not Kind.ref]

    @property
    def columns(self) -> list[str]:
        """Return the columns that are shown, in order."""
        first = ["id", *([self.parent.column] if self.parent else [])]
        first += ["author_id"] if self.owned else []
        return [*first, *(each.name for each in self.fields), "version", "created_at", "updated_at"]

    @property
    def sorts(self) -> list[str]:
        """Return the columns that the listing can be sorted by."""
        return ["created_at", *(field.name for field in self.fields if field.is_sorted)]

    @property
    def filters(self) -> list[str]:
        """Return the columns that the listing can be narrowed down by to one value."""
        owner = ["author_id"] if self.owned else []
        return owner + [field.name for field in self.fields if field.is_filter]

    @property
    def datetime_fields(self) -> list[Field]:
        """Return the fields that the listing can be narrowed down by to a range."""
        return [field for field in self.fields if field.kind is Kind.datetime]

    @property
    def marks(self) -> list[Other]:
        """Return the resources with which rows go to the trash, each once."""
        return [each for each in (self.parent, *(other for _, other in self.others)) if each]

    @cached_property
    def indexes(self) -> list[PageIndex]:
        """Return an index for each order under each filter, and for each foreign key."""
        lead = (self.parent.column,) if self.parent else ()
        columns_of_each = [
            (*lead, *filter_, sort, "id")
            for filter_ in [(), *((name,) for name in self.filters)]
            for sort in self.sorts
        ]
        # What goes with other rows is found by the column that points to them.
        pointers = [("author_id",)] if self.owned else []
        pointers += [(field.name,) for field, _ in self.others]
        columns_of_each += pointers if self.parent else []
        return [PageIndex(each, self._index_name(each)) for each in columns_of_each]

    def _index_name(self, columns: Sequence[str]) -> str:
        name = f"ix_{self.plural}_{'_'.join(columns)}"
        if len(name) <= _MAX_IDENTIFIER:
            return name
        return _fitting(f"ix_{self.plural}_by_{'_'.join(columns[-3:-1] or columns)}")

    def named(self, index: PageIndex) -> bool:
        """Return whether the model has to name an index, as its columns do not."""
        return index.name != f"ix_{self.plural}_{'_'.join(index.columns)}"


def _fitting(identifier: str) -> str:
    if len(identifier) > _MAX_IDENTIFIER:
        raise MistakeError(f"take a shorter name, or shorter fields: {identifier!r} is too long")
    return identifier


def article(word: str) -> str:
    """Return the article of a word, as it is pronounced as far as its first letters tell."""
    return "an" if _VOWEL_SOUND.match(word) else "a"


def plan_of(
    root: Path,
    plural: str,
    fields: Sequence[Field],
    *,
    singular: str = "",
    owned: bool = False,
    public: bool = False,
    nested_under: str = "",
    spanish: str = "",
) -> Plan:
    """Return what is to be written; raise MistakeError for what cannot be."""
    require_name(plural, "a resource")
    singular = singular or singular_of(plural)
    require_name(singular, "one of a resource")
    if not _PLAIN.fullmatch(spanish):
        raise MistakeError("--spanish takes letters, digits, spaces and hyphens")
    if plural == singular:
        raise MistakeError("name many and one of the resource in two ways")
    names = [field.name for field in fields]
    parent = other_of(root, nested_under, "--nested-under") if nested_under else None
    names += [parent.column] if parent else []
    if twice := [name for name in names if names.count(name) > 1]:
        raise MistakeError(f"{twice[0]!r} is there twice")
    others = [(each, other_of(root, each.target, each.name)) for each in fields if each.target]
    if all(field.kind is Kind.ref for field in fields):
        raise MistakeError("name at least one field that is no ref")
    taken = [each.plural for each in (parent, *(other for _, other in others)) if each]
    if (owned and "users" in taken) or len({*taken}) < len(taken):
        raise MistakeError("point to each resource once")
    revision, after = _next_revision(root)
    for field, _ in others:
        _fitting(f"fk_{plural}_{field.name}")
    return Plan(
        *(plural, singular, tuple(fields), revision, after, owned, public, parent, tuple(others)),
        spanish=spanish or f"«{plural}»",
    )


def other_of(root: Path, plural: str, what: str) -> Other:
    """Return a resource that rows may point to: one whose rows have a trash, or a ref would keep
    its target from being deleted."""
    with_trash = {
        str(mapper.local_table.description): mapper.class_.__name__
        for mapper in Base.registry.mappers
        if issubclass(mapper.class_, SoftDelete)
        and mapper.class_.__name__ not in _NOT_FOR_EVERYBODY
        and not hasattr(mapper.class_, "post_id")  # seen with its post alone
    }
    if plural not in with_trash:
        raise MistakeError(f"{what}: {plural!r} is none of {', '.join(sorted(with_trash))}")
    singular = Document.of(root).singular_of(plural)
    if not singular:
        raise MistakeError(f"{what}: the API has no path of one of {plural!r}, which has its `id`")
    return Other(plural, singular, with_trash[plural])


def _next_revision(root: Path) -> tuple[str, str]:
    last = max(path.name[:4] for path in (root / "alembic" / "versions").glob("[0-9]*.py"))
    return f"{int(last) + 1:04}", last
