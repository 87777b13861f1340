"""Secrets: random ones are accepted, guessable ones are refused."""

from __future__ import annotations

import base64
import secrets
import string
import uuid
from collections.abc import Callable

import pytest

from app.config.entropy import MIN_SECRET_BITS, guess_bits, is_guessable
from tests.support.settings import GOOD_SECRET

RANDOM: dict[str, Callable[[], str]] = {
    "token_urlsafe(24)": lambda: secrets.token_urlsafe(24),
    "token_urlsafe(32)": lambda: secrets.token_urlsafe(32),
    "token_urlsafe(48)": lambda: secrets.token_urlsafe(48),
    "token_hex(16)": lambda: secrets.token_hex(16),
    "token_hex(32)": lambda: secrets.token_hex(32),
    "base64 of 32": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
    "base64 of 64": lambda: base64.b64encode(secrets.token_bytes(64)).decode(),
    "uuid4": lambda: str(uuid.uuid4()),
    "two uuid4": lambda: f"{uuid.uuid4()}{uuid.uuid4()}",
    "32 letters": lambda: "".join(secrets.choice(string.ascii_lowercase) for _ in range(32)),
    "40 signs": lambda: "".join(secrets.choice(string.printable[:94]) for _ in range(40)),
}
TEXT = b"this-is-my-super-secret-key"
WEAK = [
    # A short pattern, repeated.
    *("a" * 40, "ab" * 20, "abc" * 12, "0123456789" * 4, "deadbeef" * 8, "kJ8vQz2m" * 4),
    *(
        "kJ8vQz2mN5xR7tY4" * 2,
        "abc" * 12 + "X",
        "X" + "abc" * 12,
        "aaaabbbbccccddddeeeeffffgggghhhh",
    ),
    *("0" * 31 + "1", "0123456789abcdef" * 4, "abABabABabABabABabABabABabABabABab"),
    # Steps on the keyboard and in the alphabet.
    *("qwertyuiopasdfghjklzxcvbnm123456", "1qaz2wsx3edc4rfv5tgb6yhn7ujm8ik,9ol.0p;/"),
    *(string.ascii_letters + string.digits, string.digits + string.ascii_letters),
    *("zyxwvutsrqponmlkjihgfedcba987654321", "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8"),
    *("aAbBcCdDeEfFgGhHiIjJkKlLmMnNoOpPqQrR", "112233445566778899aabbccddeeff00"),
    *("QWERTYUIOPqwertyuiop1234567890", "!@#$%^&*()_+!@#$%^&*()_+!@#$%^&*", "acegikmoqsuwy" * 3),
    # Words.
    *("changeme" * 5, "password" * 5, "P4ssw0rd!" * 4, "correcthorsebatterystaple" * 2),
    *("this-is-my-super-secret-key-for-production", "supersecretkeysupersecretkey12345"),
    *("my-super-secret-key-that-is-very-long-1234", "your-256-bit-secret-your-256-bit-secret"),
    *("please-set-me-to-something-random-0123", "Cimiento-Secret-Key-Production-2026-11"),
    *("January2024February2024March2024April", "thisisaverylongsecretkeythatnobodycanguess"),
    # Words of Spanish, with accents or without.
    *("mi-clave-secreta-muy-larga-para-produccion-2024", "miclavesecretadelservidordeproduccion"),
    *("esta-es-la-clave-secreta-de-mi-aplicacion-web", "Contraseña-Super-Secreta-Del-Servidor-1"),
    *("la contraseña de producción es muy difícil", "cl4ve_s3creta_muy_segura_para_el_sitio"),
    # Reversed.
    *("noitcudorp-rof-yek-terces-repus-ym-si-siht", "drowssap-terces-gnol-yrev-ym-si-siht"),
    *("noiccudorp-arap-agral-yum-aterces-evalc-im",),
    # Encoded.
    *(base64.b64encode(bytes(32)).decode(), base64.b64encode(bytes(range(32))).decode()),
    *(
        base64.urlsafe_b64encode(b"password" * 4).decode(),
        TEXT.hex(),
        base64.b64encode(TEXT).decode(),
    ),
    *(bytes(range(16)).hex().upper(), base64.b64encode(b"\xff" * 48).decode()),
    # Of tutorials.
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "a-string-secret-at-least-256-bits-long",
    # Short.
    *("", "x", "kJ8-vQz2_mN5xR7tY4wB6cD9"),
    # Long, and still weak.
    *("abc" * 1_000, "\u0130" * 64, "ß" * 64),
]


# Thousands of secrets, or long ones: each takes many times as long while coverage is measured.
@pytest.mark.long
@pytest.mark.parametrize("name", RANDOM)
def test_what_is_random_is_never_refused(name: str) -> None:
    found = [RANDOM[name]() for _ in range(300)]
    assert [secret for secret in found if is_guessable(secret)] == []


def test_what_is_random_and_looks_least_so_is_not_refused() -> None:
    assert not is_guessable("fda7bbb637482153423091306552349e")


@pytest.mark.parametrize("secret", WEAK)
def test_what_is_made_up_or_repeated_is_refused(secret: str) -> None:
    assert is_guessable(secret)


@pytest.mark.long
def test_what_stands_beside_something_random_takes_nothing_from_it() -> None:
    for secret in (f"tests-{GOOD_SECRET}", "a" * 300 + GOOD_SECRET, GOOD_SECRET + "a" * 4_000):
        assert guess_bits(secret) > MIN_SECRET_BITS, secret[:20]


def test_words_drawn_by_lot_are_enough_of_them() -> None:
    drawn = "unhidden gauging cufflink unlearned overreact sandbank tapestry mumbling"
    assert not is_guessable(drawn)
