"""What is to be written for a new resource: its names, and where they stand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from app.cli.new_resource.fields import Field, Kind, MistakeError, camel, require_name
from app.models import Base
from app.models.base import SoftDelete

LAYERS = ("models", "schemas", "crud", "routers")
_MAX_IDENTIFIER = 60  # of the databases: PostgreSQL cuts a longer one
# What the modules import by these names.
NAMES = {
    *("Annotated", "Any", "Author", "Base", "Caller", "Case", "Client", "ClassVar"),
    *("CreatedAt", "Date", "Depends", "Entry", "Field", "Filled", "Flag", "Id", "Index", "Literal"),
    *(
        "Location",
        "Mapped",
        "Page",
        "Permission",
        "Person",
        "Projection",
        "Request",
        "Response",
        "Scenario",
    ),
    *("Select", "Session", "String", "Subquery", "Text", "Transaction", "UpdatedAt", "User"),
    *("UpdateModel", "Versioned", "World"),
}
# What the modules call their parameters.
_VARIABLES = {
    *("background", "caller", "data", "found", "idempotent", "one", "page", "path", "query"),
    *("reader", "request", "response", "router", "row", "schemas", "session"),
    *("transaction", "write"),
}
# A reference to one would disclose to any caller that it exists.
_NOT_FOR_EVERYBODY = {"Role"}
_PLAIN = re.compile(r"[\w -]*")
_UNCOUNTED = re.compile(r"(ss|us|is)$")


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
    def a(self) -> str:
        """Return the article of `singular`."""
        return article(self.singular)

    @property
    def is_posts(self) -> bool:
        """Return whether it is posts, of which callers see some."""
        return self.plural == "posts"


@dataclass(frozen=True)
class PageIndex:
    """An index that a page is read from."""

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
        """Return an index for each order under each filter."""
        lead = (self.parent.column,) if self.parent else ()
        columns_of_each = [
            (*lead, *filter_, sort, "id")
            for filter_ in [(), *((name,) for name in self.filters)]
            for sort in self.sorts
        ]
        return [PageIndex(each, self._index_name(each)) for each in columns_of_each]

    def _index_name(self, columns: Sequence[str]) -> str:
        name = f"ix_{self.plural}_{'_'.join(columns)}"
        if len(name) <= _MAX_IDENTIFIER:
            return name
        return _fitting(f"ix_{self.plural}_by_{'_'.join(columns[-3:-1])}")

    def named(self, index: PageIndex) -> bool:
        """Return whether the model has to name an index, as its columns do not."""
        return index.name != f"ix_{self.plural}_{'_'.join(index.columns)}"


def _fitting(identifier: str) -> str:
    if len(identifier) > _MAX_IDENTIFIER:
        raise MistakeError(f"take a shorter name, or shorter fields: {identifier!r} is too long")
    return identifier


def article(word: str) -> str:
    """Return the article of a word, as far as its first letter tells."""
    return "an" if word[0] in "aeio" else "a"


def singular_of(plural: str) -> str:
    """Return the singular of a regular English plural; raise MistakeError for any other."""
    for ending, singular in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("ches", "ch")):
        if plural.endswith(ending):
            return plural.removesuffix(ending) + singular
    if plural.endswith("s") and not _UNCOUNTED.search(plural):
        return plural[:-1]
    raise MistakeError(f"say what one of {plural!r} is called: --singular NAME")


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
    parent = other_of(nested_under, "--nested-under") if nested_under else None
    names += [parent.column] if parent else []
    if twice := [name for name in names if names.count(name) > 1]:
        raise MistakeError(f"{twice[0]!r} is there twice")
    others = [(each, other_of(each.target, each.name)) for each in fields if each.target]
    if all(field.kind is Kind.ref for field in fields):
        raise MistakeError("name at least one field that is no ref")
    taken = [each.plural for each in (parent, *(other for _, other in others)) if each]
    if (owned and "users" in taken) or len({*taken}) < len(taken):
        raise MistakeError("point to each resource once")
    revision, after = _next_revision(root)
    _require_free(root, plural, singular)
    for field, _ in others:
        _fitting(f"fk_{plural}_{field.name}")
    return Plan(
        *(plural, singular, tuple(fields), revision, after, owned, public, parent, tuple(others)),
        spanish=spanish or f"«{plural}»",
    )


def other_of(plural: str, what: str) -> Other:
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
    class_name = with_trash[plural]
    return Other(plural, re.sub(r"(?<!^)([A-Z])", r"_\1", class_name).lower(), class_name)


def _next_revision(root: Path) -> tuple[str, str]:
    last = max(path.name[:4] for path in (root / "alembic" / "versions").glob("[0-9]*.py"))
    return f"{int(last) + 1:04}", last


def _require_free(root: Path, plural: str, singular: str) -> None:
    paths = [root / "app" / layer / f"{plural}.py" for layer in LAYERS]
    paths += [root / "tests" / plural, root / "tests/contract/entries" / f"{plural}.py"]
    for path in paths:
        if path.exists():
            raise MistakeError(f"{plural!r} is taken: {path.relative_to(root)} is there")
    classes = {mapper.class_.__name__ for mapper in Base.registry.mappers} | NAMES
    tables = {table.replace("_", "") for table in Base.metadata.tables}
    is_variable = {singular, plural} & _VARIABLES
    if is_variable or camel(singular) in classes or plural.replace("_", "") in tables:
        raise MistakeError(f"{plural!r} is taken: the code has something of this name")
