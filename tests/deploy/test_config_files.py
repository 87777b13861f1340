"""Files that settings come from, and key files: one that cannot be used is named."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from app.config import load_settings
from app.core import key_files
from tests.support.settings import GOOD_SECRET, production, refusal

pytestmark = pytest.mark.usefixtures("no_settings")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"k\0\xff"])
def test_a_secret_file_that_is_no_text_is_named(content: bytes) -> None:
    Path("data").mkdir()
    Path("data/secret.key").write_bytes(content)
    assert "data/secret.key is not UTF-8" in refusal()


def test_a_folder_that_cannot_be_made_is_named() -> None:
    Path("data").touch()
    assert "DATA_DIR cannot be used: data: is no folder" in refusal()
    Path("data").unlink()
    Path("data/keys/1.pem").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOKEN_ALGORITHM", "ES256")
        assert "the key pairs of DATA_DIR cannot be read: data/keys/1.pem: Is a" in refusal()


def test_production_with_es256_starts_with_a_key_pair_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A54: a pair that came by itself would be another one on each machine."""
    production(monkeypatch, TOKEN_ALGORITHM="ES256", DATA_DIR="state")
    assert "state/keys: scripts/rotate-key makes one (SECRET_KEY may stay" in refusal()
    assert not Path("state").exists()
    key_files.rotate_pair(Path("state"), keep=timedelta(days=1))
    assert len(load_settings().key_pairs) == 1


def test_a_line_break_in_a_path_does_not_break_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    production(monkeypatch, TOKEN_ALGORITHM="ES256", DATA_DIR="a\nb\r\n\u2028c")
    assert "ES256 needs a key pair in a b c/keys" in refusal()


@pytest.mark.parametrize(
    "content", [b"HOST=\xff\xfe\n", "HOST=ñ".encode("latin-1"), b"\xff\xfeH\0"]
)
def test_a_dotenv_file_in_another_encoding_is_refused(
    monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    production(monkeypatch)
    Path(".env").write_bytes(content)
    assert refusal() == "cimiento: refusing to start: .env is not UTF-8"


PEM = "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n"


def unusable_keys() -> dict[str, bytes]:
    p384 = ec.generate_private_key(ec.SECP384R1())
    rsa_ = rsa.generate_private_key(65_537, 2048)
    p256 = ec.generate_private_key(ec.SECP256R1())
    plain, pem, pkcs8 = NoEncryption(), Encoding.PEM, PrivateFormat.PKCS8
    spki = PublicFormat.SubjectPublicKeyInfo
    return {
        "nothing": b"",
        "text": b"canary",
        "bytes": b"canary\xff\0",
        "no base64": (PEM % "canary!").encode(),
        "no key": (PEM % "Y2FuYXJ5").encode(),
        "another curve": p384.private_bytes(pem, pkcs8, plain),
        "RSA": rsa_.private_bytes(pem, pkcs8, plain),
        "the public half": p256.public_key().public_bytes(pem, spki),
        "under a password": p256.private_bytes(pem, pkcs8, BestAvailableEncryption(b"canary")),
    }


@pytest.mark.parametrize("kind", ["development", "production"])
def test_an_unusable_key_file_is_refused_by_its_path(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A54: nothing of its content is shown, and nothing put in its place."""
    production(monkeypatch, TOKEN_ALGORITHM="ES256", ENVIRONMENT=kind)
    path = Path("data/keys/3.pem")
    path.parent.mkdir(parents=True)
    for content in unusable_keys().values():
        path.write_bytes(content)
        line = refusal()
        assert f"{path} is not a " in line
        assert "canary" not in line
        assert [*path.parent.iterdir()] == [path]
    path.unlink()
    path.mkdir()
    assert str(path) in refusal(), "one that cannot be read at all"


def test_an_empty_secret_file_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data").mkdir()
    Path("data/secret.key").write_text(" \n")
    assert "SECRET_KEY must not be empty" in refusal()
    monkeypatch.setenv("SECRET_KEY", GOOD_SECRET)
    assert not load_settings().keeps_secret
