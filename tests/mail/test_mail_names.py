"""Whatever a user is called: no mail program makes a link of it, nor a paragraph, nor a subject
that says something else."""

# ruff: noqa: RUF001  signs that look like others are what this is about

from __future__ import annotations

import email
import email.header
import email.policy
import itertools
import re
import unicodedata
from html.parser import HTMLParser
from pathlib import Path

import pytest

from app.config import Settings
from app.core.i18n import LOCALES
from app.models.base import utc_now
from app.models.one_time_tokens import Purpose
from app.models.outbox import Mail, MailKind
from app.tasks.mail import compose, render
from app.tasks.user_text import shown_address, shown_name
from tests.conftest import make_settings
from tests.support.mails import ADDRESSES

RECIPIENT, NEW_ADDRESS = "ana@example.com", "new@example.org"
INNOCUOUS = "Ana García"
LINKS = [
    "http://evil.example",
    "HTTPS://EVIL.EXAMPLE",
    "evil.example",
    "Evil.Example",
    "EVIL.COM",
    "www.evil.example",
    "see www.evil",
    "//evil.example/x",
    "\\\\evil\\share",
    "javascript:alert(1)",
    "mailto:a@evil.example",
    "tel:0034600123456",
    "Call 600 123 456 now",
    "Call ٦٠٠١٢٣٤٥٦",
    "a@evil.example",
    "a@localhost",
    "192.0.2.1",
    "[2001:db8::1]",
    "xn--90a5ai.xn--p1ai",
    "сбер.рф",
    "例え.テスト",
    "例え。テスト",
    "evil。com",
    "evil．com",
    "evil｡com",
    "evil․com",
    "evil﹒com",
    "ｅｖｉｌ．ｃｏｍ",
    "evil\u200b.com",
    "evil.\u200bcom",
    "evil.\u2060com",
    "evil.\u200dcom",
    "evil.\ufe0fcom",
    "evil.\u00adcom",
    "evil\u034f.\u034fcom",
    "evil.\u3164com",
    "evil.\u2800com",
    "evil.\U000e0063com",
    "evil\u202e.com",
    "evil.\u0301com",
    "evil.com\u2028",
    "evil⒈com",
    "http：／／evil",
    "a＠evil",
    "evil۔com",
    "x.ªcom",
    "☃.net",
    "i❤.ws",
    "J.Evil.com",
]
ENCODED = [
    "=?utf-8?q?Click_evil=2Eexample=2Ecom?=",
    "=?utf-8?b?Q2xpY2sgZXZpbC5leGFtcGxlLmNvbQ==?=",
    "=?UTF-8?Q?evil=2Ecom?= =?utf-8?q?_now?=",
    "Ana =?us-ascii?q?x?=",
    "=\u200b?utf-8?q?evil=2Ecom?=",
    "=\u2060?utf-8?q?evil=2Ecom?\u2060=",
    "＝？utf-8？q？evil＝2Ecom？＝",
    "ñ =?utf-8?q?evil=2Ecom?=",
]
BROKEN = [
    "Ana\n\nYour account is locked. Call us",
    "Ana\r\n\r\nYour account is locked",
    "Ana\u2028\u2029Your account is locked",
    "Ana\x85\x85Your account is locked",
    "Ana\v\fYour account\x1c\x1d\x1e is locked",
    "Ana" + "\u3164" * 40 + "Your account is locked",
    "Ana" + " " * 60 + "Your account is locked",
    "Ana" + "\u2800" * 40 + "Your account is locked",
    "\u202eAna\u202c \u2067x\u2069",
    "Ana\n-- \nEve",
    "Ana\nSubject: x",
    "Ana\r\nBcc: victim@example.com",
    "Ana\x00\x1b[2J",
    "</p><p>Your account is locked</p>",
    '<a href="x">Click</a><br><br>',
    "<!-- ",
    "&lt;p&gt;&#10;",
    "{link} {public_url} {0} {{ 7 * 7 }} %s",
    "\u200b\u200b",
    "\u0301\u0301",
    "",
]
HOSTILE = [*LINKS, *ENCODED, *BROKEN]
HARMLESS = {
    "Ana García": "Ana García",
    "J. R. García": "J. R. García",
    "J.R.R. Tolkien": "J. R. R. Tolkien",
    "Dr.Pérez": "Dr. Pérez",
    "St. John": "St. John",
    "M.ª Carmen": "M.ª Carmen",
    "А.С. Пушкин": "А. С. Пушкин",
    "Jean-Luc O'Neil, Jr.": "Jean-Luc O'Neil, Jr.",
    "J.-P. Dupont": "J.-P. Dupont",
    "Ana…": "Ana…",
    "Gal·la": "Gal·la",
    "王小明": "王小明",
    "مرحبا שלום": "مرحبا שלום",
    "\u0645\u06cc\u200c\u062e\u0648\u0627": "\u0645\u06cc\u200c\u062e\u0648\u0627",
    "👩‍👩‍👧 Ana ❤️": "👩‍👩‍👧 Ana ❤️",
    "R2-D2 & C-3PO (2026)": "R2-D2 & C-3PO (2026)",
    "Ana\n\nLuis": "Ana Luis",
    "\u202eAna\u00ad\u200bLuis\u202c": "AnaLuis",
}
CASES = [*itertools.product(MailKind, LOCALES)]
# Those whose subjects name the recipient.
NAMED = [*itertools.product((MailKind.welcome, MailKind.invitation), LOCALES)]
# What programs make links of, in a text that is read as a resolver of domains would.
_LINK = re.compile(r"\S*(?:[/\\@]|\w:\S|=\?|[^\W_]\.[^\W_])\S*|(?:\d\W{0,2}){7,}")
_IGNORED = re.compile(
    "[\u00ad\u034f\u200b-\u200f\u2060-\u206f\ufe00-\ufe0f\ufeff\u202a-\u202e\u3164]"
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return make_settings("sqlite+aiosqlite://", tmp_path, public_url="https://api.example.com")


def mail_of(
    settings: Settings, kind: MailKind, locale: str, name: str, *, recipient: str = RECIPIENT
) -> Mail:
    """A mail that was never stored, with a link."""
    values = {
        "name": name,
        "new_email": NEW_ADDRESS,
        "purpose": Purpose.verify_email,
        "nonce": "0" * 32,
        "key": settings.keys.newest_id,
    }
    now = utc_now()
    return Mail(
        kind=kind, recipient=recipient, locale=locale, values=values, key="0" * 32, created_at=now
    )


def links_in(text: str) -> list[str]:
    """What could be taken for a link in a text."""
    plain = unicodedata.normalize("NFKC", _IGNORED.sub("", text).replace("…", " "))
    for dot in "。｡۔":
        plain = plain.replace(dot, ".")
    return _LINK.findall(plain)


class Outline(HTMLParser):
    """The elements of a page and its texts, one for each element."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, object]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data)


def subjects(content: bytes) -> set[str]:
    """A mail's subject, as programs old and new read it."""
    modern = email.message_from_bytes(content, policy=email.policy.default)["Subject"]
    raw = email.message_from_bytes(content)["Subject"]
    legacy = str(email.header.make_header(email.header.decode_header(raw)))
    return {str(modern), "".join(legacy.splitlines())}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_adds_a_link_or_a_paragraph(settings: Settings, name: str) -> None:
    """Every kind of mail, in both languages: as many of each as for anybody else."""
    for kind, locale in CASES:
        found = render(mail_of(settings, kind, locale, name), settings)
        usual = render(mail_of(settings, kind, locale, INNOCUOUS), settings)
        assert links_in(found.text) == links_in(usual.text)
        # As programs count lines, those of other scripts too.
        assert len(found.text.splitlines()) == len(usual.text.splitlines())
        assert [not line for line in found.text.splitlines()] == [
            not line for line in usual.text.splitlines()
        ]
        page, usual_page = Outline(found.html), Outline(usual.html)
        assert page.elements == usual_page.elements
        assert len(page.texts) == len(usual_page.texts)
        assert links_in(" ".join(page.texts)) == links_in(" ".join(usual_page.texts))
        assert not [text for text in page.texts if len(text.splitlines()) > 1]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_makes_a_subject_that_says_something_else(settings: Settings, name: str) -> None:
    """The same for every program that reads it, on one line, without a link but one's address."""
    for kind, locale in NAMED:
        mail = mail_of(settings, kind, locale, name)
        expected = render(mail, settings).subject
        content = compose(mail, settings).as_bytes()
        assert subjects(content) == {expected}
        assert links_in(expected) in ([], [RECIPIENT])
        assert "evil" not in expected.lower() or ". " in expected
        assert len(expected.splitlines()) == 1
        assert b"=?utf-8?q?Click" not in content


@pytest.mark.parametrize("name", HARMLESS)
def test_other_names_are_shown_as_they_are(settings: Settings, name: str) -> None:
    shown = HARMLESS[name]
    for kind, locale in CASES:
        mail = mail_of(settings, kind, locale, name)
        found = render(mail, settings)
        assert shown in found.text.splitlines()[0]
        if "{" not in shown:
            assert shown in "".join(Outline(found.html).texts)
    for kind, locale in NAMED:
        mail = mail_of(settings, kind, locale, name)
        [subject] = subjects(compose(mail, settings).as_bytes())
        assert subject.endswith(f", {shown}")


@pytest.mark.parametrize(
    "name",
    [
        "ñ" * 100,
        "x" * 100,
        "ñ" * 29 + " evil. com",
        "ñ " * 50,
        "a b " * 25,
        "😀" * 100,
        "é=" * 50,
        "= ? " * 25,
    ],
)
def test_a_long_name_survives_the_folding_of_headers(settings: Settings, name: str) -> None:
    for locale, recipient in itertools.product(LOCALES, (RECIPIENT, "josé@example.com")):
        mail = mail_of(settings, MailKind.welcome, locale, name, recipient=recipient)
        content = compose(mail, settings).as_bytes()
        [read] = subjects(content)
        assert read.endswith(f", {' '.join(name.split())}")
        assert max(map(len, content.partition(b"\r\n\r\n")[0].split(b"\r\n"))) <= 120


@pytest.mark.parametrize("recipient", ["www.evil.com/x@example.com", *ADDRESSES])
@pytest.mark.parametrize("locale", LOCALES)
def test_an_address_that_looks_like_a_link_is_not_shown_instead(
    settings: Settings, locale: str, recipient: str
) -> None:
    """The subject has no name at all then; the text never has an address in a name's place."""
    mail = mail_of(settings, MailKind.invitation, locale, "evil.example", recipient=recipient)
    found = render(mail, settings)
    unnamed = {"en": "Activate your account", "es": "Activa tu cuenta"}[locale]
    named = f"{unnamed}, {recipient}"
    is_plain = not re.search(r"[/\\:\",]", recipient)
    assert found.subject == (named if is_plain else unnamed)
    assert recipient not in found.text
    assert recipient not in found.html


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ana.garcia+x@example.org", "ana.garcia+x@example.org"),
        ("o'hara@sub.example.org", "o'hara@sub.example.org"),
        ("josé@exämple.com", "josé@exämple.com"),
        ("www.evil.com@example.org", "www . evil . com @ example . org"),
        ("evil.com/fix@example.org", "evil . com / fix @ example . org"),
        ('"http://evil.com"@x.org', '" http : / / evil . com " @ x . org'),
        ("a@x.org\r\n\r\nYour account", "a @ x . org Your account"),
    ],
)
def test_a_new_address_is_shown_without_a_link_to_a_page(address: str, shown: str) -> None:
    """What a thief who has the session may have typed."""
    assert shown_address(address) == shown


def test_a_name_of_nothing_is_no_name() -> None:
    assert shown_name("") is None
    assert shown_name(" \n\u200b\u3164") is None
