"""Hostile input: values for every field, parameter, header and body, and where to put them.

Where is taken from the OpenAPI document, so that what is added later is met as well.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.support.openapi import Contract

# Part of every hostile text; no error may ever repeat it.
CANARY = "c4n4ry-7f3a"
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
_numbers = itertools.count(1)

# As they would stand in JSON, unquoted. Some of them are no JSON at all: parsers differ on them.
NUMBERS = {
    "nan": "NaN",
    "infinity": "Infinity",
    "-infinity": "-Infinity",
    "1e400": "1e400",
    "-1e400": "-1e400",
    "1e-400": "1e-400",
    "5000 digits": "9" * 5_000,
    "-5000 digits": "-" + "9" * 5_000,
    "2^31": str(2**31),
    "2^63-1": str(2**63 - 1),
    "2^63": str(2**63),
    "2^64": str(2**64),
    "-2^63-1": str(-(2**63) - 1),
    "-1": "-1",
    "0": "0",
    "1_000": "1_000",
    "1.0": "1.0",
    "1.5": "1.5",
    "0x10": "0x10",
    " 1": " 1",
}
TEXTS = {
    "empty": "",
    "blank": "   ",
    "nul": f"{CANARY}\0",
    "control characters": f"{CANARY}\r\n\x1b[31m\x7f",
    "line separator": f"{CANARY}\u2028\u2029",
    "no character": f"{CANARY}\ufffe\uffff",
    "emoji": f"{CANARY}\U0001f469\u200d\U0001f467\U0001f3f3\ufe0f\u200d\U0001f308",
    "right to left": f"{CANARY}\u202e\u05e2\u05d1\u05e8 \u0639\u0631\u0628\u064a",
    "combining": CANARY + "Z\u0351\u036b" * 10 + "\u0301" * 50,
    "not normalised": f"{CANARY}\ufdfa \ufb01 \u0130 \u00df",
    "wide digits": "\uff11\uff12\uff13\uff14\uff15\uff16\uff17\uff18\uff19\uff10\uff11",
    "wildcards": f"{CANARY}%_\\%%'\"`;--",
    "markup": f"{CANARY}<script>alert(1)</script>",
    "format string": f"{CANARY}{{0}}{{email}}%s%(x)s${{x}}",
    "many dots": f"{CANARY}/../../etc/passwd",
    "1 KB": f"{CANARY}{'x' * 1_000}",
    "date": "0000-00-00",
    "early moment": "0001-01-01T00:00:00+14:00",
    "late moment": "9999-12-31T23:59:59-14:00",
    "moment without zone": "2026-01-01T00:00:00",
    "seconds": "1e30",
}
_SURROGATE = json.dumps(f"{CANARY}\ud800")
JSON_VALUES: dict[str, bytes] = {
    **{name: value.encode() for name, value in NUMBERS.items()},
    **{f"text {name}": json.dumps(value).encode() for name, value in NUMBERS.items()},
    **{name: json.dumps(value, ensure_ascii=False).encode() for name, value in TEXTS.items()},
    "lone surrogate": _SURROGATE.encode(),
    "surrogates in the wrong order": b'"\\udc00\\ud800"',
    "bad UTF-8": b'"' + CANARY.encode() + b'\xff\xfe"',
    "surrogate in UTF-8": b'"' + CANARY.encode() + b'\xed\xa0\x80"',
    "overlong NUL": b'"' + CANARY.encode() + b'\xc0\x80"',
    "raw NUL": b'"' + CANARY.encode() + b'\0"',
    "100 KB": json.dumps(CANARY + "ñ" * 50_000, ensure_ascii=False).encode(),
    "null": b"null",
    "true": b"true",
    "empty list": b"[]",
    "empty object": b"{}",
    "list": json.dumps([CANARY, 1, None]).encode(),
    "object": json.dumps({CANARY: CANARY}).encode(),
    "long list": b"[" + b"1," * 20_000 + b"1]",
    "nested list": b"[" * 500 + b"]" * 500,
    "nested object": b'{"a":' * 500 + b"1" + b"}" * 500,
}
# What gets through validation somewhere: every database has to see it.
REACHING = [*TEXTS, "0", "2^31", "2^63-1", "1.0", " 1", "text 0", "text 2^31", "true"]
# Percent-encoded, as they stand in a URL.
URL_VALUES: dict[str, str] = {
    **{name: quote(value, safe="") for name, value in NUMBERS.items()},
    **{name: quote(value, safe="") for name, value in TEXTS.items()},
    "bad UTF-8": f"{CANARY}%FF%FE",
    "surrogate in UTF-8": f"{CANARY}%ED%A0%80",
    "overlong NUL": f"{CANARY}%C0%80",
    "half an escape": f"{CANARY}%",
    "no escape": f"{CANARY}%zz%u0041",
    "plus": f"{CANARY}+%2B",
    "4 KB": f"{CANARY}{'x' * 4_000}",
}
URL_KEYS = ("%00", "%ED%A0%80", "%FF", "%E2%80%A8", "", "%", "__proto__", "k" * 9_000)
HEADERS: dict[str, bytes] = {
    "empty": b"",
    "latin-1": CANARY.encode() + b"\xe9\xff",
    "utf-8": f"{CANARY} ñ 😀".encode(),
    "nul": CANARY.encode() + b"\0",
    "line break": CANARY.encode() + b"\r\nX-Injected: 1",
    "long": CANARY.encode() + b"x" * 20_000,
    "commas": b"," * 5_000,
    "quotes": b'"' * 101,
    "5000 digits": b"9" * 5_000,
    "-1": b"-1",
    "nan": b"nan",
    "percent": b"%00%ff%",
}
HEADER_NAMES = (
    *("Accept", "Accept-Encoding", "Accept-Language", "Authorization", "Content-Encoding"),
    *("Content-Length", "Content-Type", "Cookie", "Forwarded", "Host", "If-Match", "Origin"),
    "Idempotency-Key",
    *("Range", "Transfer-Encoding", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host"),
    *("X-HTTP-Method-Override", "X-Request-ID"),
)


@dataclass(frozen=True)
class Attempt:
    """One hostile request."""

    what: str
    method: str
    url: str
    content: bytes | None = None
    content_type: str | None = None


@dataclass(frozen=True)
class Target:
    """An operation with a valid URL: its path parameters name rows that exist."""

    name: str
    method: str
    path: str
    ids: dict[str, int]
    operation: dict[str, Any]

    def url(self, **replaced: str) -> str:
        return self.path.format_map(self.ids | replaced)

    def parameters(self, place: str) -> list[str]:
        given = self.operation.get("parameters", [])
        return [entry["name"] for entry in given if entry["in"] == place]


def targets(contract: Contract, ids: dict[str, int]) -> list[Target]:
    """Every operation of the document."""
    return [
        Target(name, method.upper(), path, ids, operation)
        for name, (method, path, operation) in contract.operations.items()
    ]


def in_path(target: Target, what: str) -> Iterator[Attempt]:
    """A value in each path parameter."""
    for name in target.parameters("path"):
        url = target.url(**{name: URL_VALUES[what] or "%20"})
        yield Attempt(f"{what} as {name}", target.method, url)


def in_query(target: Target, what: str, names: Iterable[str]) -> Attempt:
    """A value in the query parameters of these names."""
    query = "&".join(f"{name}={URL_VALUES[what]}" for name in sorted(names))
    return Attempt(f"{what} as {query[:40]}", target.method, f"{target.url()}?{query}")


def in_json(body: Body, what: str, names: Iterable[str], *, in_list: bool = False) -> Attempt:
    """A value in these fields, the rest being valid; `in_list` puts it in a list of one."""
    raw = b"[" + JSON_VALUES[what] + b"]" if in_list else JSON_VALUES[what]
    fields = {name: json.dumps(value).encode() for name, value in body.valid().items()}
    fields |= dict.fromkeys(names, raw)
    members = (json.dumps(name).encode() + b":" + value for name, value in fields.items())
    return body.attempt(what, b"{" + b",".join(members) + b"}")


def in_form(body: Body, what: str, names: Iterable[str]) -> Attempt:
    """The same for a form."""
    fields = {name: quote(str(value)) for name, value in body.valid().items()}
    fields |= dict.fromkeys(names, URL_VALUES[what])
    return body.attempt(
        what, "&".join(f"{name}={value}" for name, value in fields.items()).encode()
    )


@dataclass(frozen=True)
class Body:
    """A body that an operation takes; `fields` are the properties of its schema."""

    target: Target
    media_type: str
    fields: dict[str, dict[str, Any]]
    required: list[str]

    def attempt(self, what: str, content: bytes, content_type: str | None = None) -> Attempt:
        content_type = self.media_type if content_type is None else content_type
        return Attempt(what, self.target.method, self.target.url(), content, content_type)

    def valid(self) -> dict[str, Any]:
        """What the document gives as an example; addresses and names are new every time."""
        body = {}
        for name in self.required:
            (body[name],) = self.fields[name].get("examples") or ["Correct-Horse-7"]
            if name in {"email", "name"}:
                body[name] = f"h{next(_numbers)}{body[name]}"
        return body


def bodies(targets: list[Target], contract: Contract, media_type: str) -> list[Body]:
    """Every body of a media type that the document describes."""
    found = []
    for target in targets:
        content = target.operation.get("requestBody", {}).get("content", {})
        if media_type in content:
            name = content[media_type]["schema"]["$ref"].rpartition("/")[2]
            schema = contract.document["components"]["schemas"][name]
            fields = schema["properties"]
            found.append(Body(target, media_type, fields, schema.get("required", [])))
    return found


_NESTED = 100_000
_WITHIN = 20_000


def whole_bodies() -> Iterator[tuple[str, bytes]]:
    """What may come instead of a JSON object."""
    yield "empty", b""
    yield "blank", b" \n "
    for text in ("null", "[]", '"x"', "1", "NaN", "{", '{"a":', '{"a":1', '{"a":1}}', "{}{}"):
        yield text, text.encode()
    for encoding in ("utf-16", "utf-16-be", "utf-32", "utf-8-sig"):
        yield encoding, json.dumps({"name": CANARY}).encode(encoding)
    yield "bad UTF-8", b'{"\xff\xfe": 1}'
    yield "deep lists", b"[" * _NESTED + b"]" * _NESTED
    yield "deep lists, cut off", b"[" * _NESTED
    yield "deep objects", b'{"a":' * (_NESTED // 3) + b"1" + b"}" * (_NESTED // 3)
    yield "many keys", json.dumps({f"k{n}": 1 for n in range(_WITHIN)}).encode()
    yield "more keys than fit", json.dumps({f"k{n}": 1 for n in range(_NESTED)}).encode()
    yield "one key many times", b'{"name":1' + b',"name":1' * _WITHIN + b"}"
    yield "gzip", gzip.compress(b'{"name": "' + CANARY.encode() * 1_000 + b'"}')
    for key in ("\0", "\ud800", "\u2028", "", "__proto__", "k" * 50_000):
        yield f"key {key[:9]!a}", json.dumps({key: CANARY}).encode()


CONTENT_TYPES = (
    "",
    "text/plain",
    "application/xml",
    "application/json; charset=utf-16",
    "application/json; charset=" + "x" * 500,
    "application/jsonp",
    "application/",
    "json",
    ";",
    "multipart/form-data",
    "multipart/form-data; boundary=",
    "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=" + "x" * 5_000,
    FORM,
    f"{FORM}; charset=utf-16",
)


def whole_forms() -> Iterator[tuple[str, bytes]]:
    """What may come instead of a form."""
    yield "empty", b""
    yield "JSON", b'{"username": "a", "password": "b"}'
    yield "no values", b"username&password"
    yield "separators", b"&" * 10_000
    yield "equals", b"=" * 10_000
    yield "1001 fields", b"&".join(b"f%d=1" % n for n in range(1_001))
    yield "one field many times", b"username=a&password=b" + b"&password=b" * 990
    yield "bad UTF-8", b"username=\xff\xfe&password=\xed\xa0\x80"
    yield "escaped bad UTF-8", b"username=%FF&password=%ED%A0%80"
    yield "half an escape", b"username=%&password=%u0041"
    yield "NUL key", b"%00=1&username=a"
    yield "long key", b"k" * 100_000 + b"=1"
    yield "surrogate key", b"%ED%A0%80=1"
