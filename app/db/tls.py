"""TLS to MariaDB and MySQL: what the options of a URL ask for, whatever their drivers call them.

Modes are MySQL's. Names count without `-`, `_` and case: `ssl-mode`, `ssl_mode` and `sslmode` are
one, `ssl_ca` and `sslCa` another.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from sqlalchemy.engine import URL


class Mode(IntEnum):
    """How much is asked for; each asks for all that those before it do."""

    DISABLED = 0
    PREFERRED = 1
    REQUIRED = 2
    VERIFY_CA = 3
    VERIFY_IDENTITY = 4


_WORDS = {
    **dict.fromkeys(("disabled", "disable", "false", "0", "off", "no"), Mode.DISABLED),
    **dict.fromkeys(("preferred", "prefer", "allow"), Mode.PREFERRED),
    **dict.fromkeys(("required", "require", "true", "1", "on", "yes"), Mode.REQUIRED),
    **dict.fromkeys(("skip-verify", "trust"), Mode.REQUIRED),
    "verify-ca": Mode.VERIFY_CA,
    **dict.fromkeys(("verify-identity", "verify-full"), Mode.VERIFY_IDENTITY),
}
_YES, _NO = ("true", "1", "on", "yes"), ("false", "0", "off", "no")
_MODES = ("ssl", "sslmode", "tls", "usessl", "requiressl")
# What is asked for by a flag that is set, and what is the most by one that is not.
_FLAGS = {
    **dict.fromkeys(("sslverifycert", "verifyservercertificate"), Mode.VERIFY_CA),
    **dict.fromkeys(("sslverifyidentity", "sslcheckhostname"), Mode.VERIFY_IDENTITY),
    # Of MariaDB's own clients, which look at the name as well.
    "sslverifyservercert": Mode.VERIFY_IDENTITY,
}
_TEXTS = {
    "sslca": "ca",
    "sslcapath": "capath",
    "sslcert": "cert",
    "sslkey": "key",
    "sslcipher": "cipher",
}


def is_tls_option(name: str) -> bool:
    """Return whether an option of a URL is about TLS."""
    plain = _plain(name)
    return plain in _MODES or plain in _FLAGS or plain in _TEXTS


def without_tls(url: URL) -> URL:
    """Return a URL without its options about TLS, which no driver knows all of."""
    return url.difference_update_query([name for name in url.query if is_tls_option(name)])


@dataclass(frozen=True)
class Tls:
    """What a URL asks for: `mode` is None if it says nothing; the others are files and the like."""

    mode: Mode | None = None
    ca: str | None = None
    capath: str | None = None
    cert: str | None = None
    key: str | None = None
    cipher: str | None = None

    @property
    def is_required(self) -> bool:
        """Whether a server without TLS is to be refused."""
        return self.mode is not None and self.mode >= Mode.REQUIRED

    @property
    def is_verified(self) -> bool:
        """Whether the server's certificate has to be of a known authority."""
        return self.mode is not None and self.mode >= Mode.VERIFY_CA

    def context(self) -> ssl.SSLContext | None:
        """Return what encrypts, or None; raise ValueError, for the operator, when a file is not
        there or not what it should be."""
        if not self.mode:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.mode >= Mode.VERIFY_IDENTITY
        context.verify_mode = ssl.CERT_REQUIRED if self.is_verified else ssl.CERT_NONE
        # Certificates that MySQL generates by itself are not as strict as Python 3.13 is.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        self._trust(context)
        if self.cert is not None:
            with _named("ssl_cert or ssl_key", self.cert, self.key):
                # Without a password, OpenSSL would prompt for it on the terminal.
                context.load_cert_chain(self.cert, self.key, password="")
        if self.cipher is not None:
            with _named("ssl_cipher", self.cipher):
                context.set_ciphers(self.cipher)
        return context

    def _trust(self, context: ssl.SSLContext) -> None:
        if self.ca is None and self.capath is None:
            context.load_default_certs()
        if self.ca is not None:
            with _named("ssl_ca", self.ca):
                context.load_verify_locations(cafile=self.ca)
        if self.capath is not None:
            with _named("ssl_capath", self.capath):
                # OpenSSL looks into the folder when it verifies, and not before.
                _ = [*Path(self.capath).iterdir()]
                context.load_verify_locations(capath=self.capath)


@contextmanager
def _named(option: str, *values: str | None) -> Iterator[None]:
    """Turn what a file is refused for into a text for the operator."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        given = " ".join(value for value in values if value is not None)
        raise ValueError(f"{option} is not usable: {given}: {reason}") from None


def tls_of(url: URL) -> Tls:
    """Return what the options of a URL ask for; raise ValueError when a value is none of those
    that are known, or two options contradict each other."""
    given = {name: str(value) for name, value in url.query.items() if is_tls_option(name)}
    texts = {
        _TEXTS[plain]: value for name, value in given.items() if (plain := _plain(name)) in _TEXTS
    }
    if "key" in texts and "cert" not in texts:
        raise ValueError("ssl_key needs ssl_cert")
    asked, most = _bounds(given)
    mode = _between(asked, most)
    if "ca" in texts or "capath" in texts:
        # An authority is there to verify by, unless that is ruled out.
        mode = max(mode or Mode.REQUIRED, min([Mode.VERIFY_CA, *most.values()]))
    return Tls(mode, **texts)


def _bounds(given: Mapping[str, str]) -> tuple[dict[str, Mode], dict[str, Mode]]:
    """Return what each option asks for at least, and what others rule out all above of."""
    asked: dict[str, Mode] = {}
    most: dict[str, Mode] = {}
    for name, value in given.items():
        plain = _plain(name)
        if plain in _TEXTS:
            asked[name] = Mode.REQUIRED
        elif plain in _MODES:
            mode = _mode(name, value)
            (asked if mode else most)[name] = mode
        elif _is_set(name, value):
            asked[name] = _FLAGS[plain]
        else:
            most[name] = Mode(_FLAGS[plain] - 1)
    return asked, most


def _between(asked: Mapping[str, Mode], most: Mapping[str, Mode]) -> Mode | None:
    for name, mode in asked.items():
        for other, limit in most.items():
            if mode > limit:
                raise ValueError(f"{name} and {other} contradict each other")
    if asked:
        return max(asked.values())
    return Mode.DISABLED if Mode.DISABLED in most.values() else None


def _mode(name: str, value: str) -> Mode:
    word = value.lower().replace("_", "-")
    if word not in _WORDS:
        known = ", ".join(mode.name for mode in Mode)
        raise ValueError(f"{name} must be one of {known}")
    # As Go's driver has it, which calls the other `skip-verify`.
    if _plain(name) == "tls" and word in _YES:
        return Mode.VERIFY_IDENTITY
    return _WORDS[word]


def _is_set(name: str, value: str) -> bool:
    if value.lower() not in (*_YES, *_NO):
        raise ValueError(f"{name} must be true or false")
    return value.lower() in _YES


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")
