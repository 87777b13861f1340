"""This machine and the settings: addresses, secrets, files, room on the disk."""

from __future__ import annotations

import re
import shutil
import stat
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from app.cli.doctor.findings import Finding, Findings, advised, failure, good, judged, warning
from app.config import Settings
from app.config.entropy import MIN_SECRET_BYTES, is_guessable

MIN_FREE_BYTES = 100 * 2**20
WANTED_FREE_BYTES = 2**30
_HERE = re.compile(r"localhost|127\..*|::1|\[::1\]")


async def check_environment(settings: Settings) -> Findings:
    """Check that it is no more open than it should be."""
    return [*_environment(settings)]


def _environment(settings: Settings) -> Iterator[Finding]:
    name = "environment"
    if settings.in_development:
        yield advised(
            name,
            _HERE.fullmatch(settings.host) is not None,
            f"development, listening on {settings.host}",
            "Others can reach a server that accepts unsafe settings: set ENVIRONMENT=production.",
        )
        return
    yield good(name, f"production, listening on {settings.host}")
    if settings.first_admin_password:
        yield warning(
            name,
            "FIRST_ADMIN_PASSWORD is still set",
            "Once that administrator can log in, remove it from the environment.",
        )
    if not settings.rate_limit_enabled:
        yield warning(
            name,
            "attempts are not limited",
            "Set RATE_LIMIT_ENABLED=true, unless something before the app limits them.",
        )


async def check_addresses(settings: Settings) -> Findings:
    """Check that clients reach the app, and that it sees their addresses."""
    return [*_addresses(settings)]


def _addresses(settings: Settings) -> Iterator[Finding]:
    name, url = "addresses", settings.public_url
    host = urlsplit(url).hostname or ""
    # As TRUSTED_HOSTS and the header have an address of IPv6.
    host = f"[{host}]" if ":" in host else host
    yield judged(
        name,
        _is_trusted(host, settings.trusted_hosts),
        f"PUBLIC_URL is {url}",
        f"The app refuses requests for {host}: add it to TRUSTED_HOSTS.",
    )
    if settings.in_development:
        return
    if _HERE.fullmatch(host) or not url.startswith("https://"):
        yield warning(
            name,
            f"links in mails would lead to {url}",
            "Set PUBLIC_URL to the https:// URL under which people reach the app.",
        )
    yield advised(
        name,
        "*" not in settings.trusted_hosts,
        "TRUSTED_HOSTS is " + ", ".join(settings.trusted_hosts),
        "Name your hosts in TRUSTED_HOSTS (and 127.0.0.1 for health checks).",
    )
    yield advised(
        name,
        bool(settings.trusted_proxies),
        "TRUSTED_PROXIES is " + (", ".join(settings.trusted_proxies) or "empty"),
        "Behind a proxy everybody seems to come from it, and shares its limits: name its address.",
    )


def _is_trusted(host: str, trusted: list[str]) -> bool:
    """Return whether the host is served, as TrustedHostsMiddleware judges it."""
    return any(
        each in {"*", host} or (each.startswith("*.") and host.endswith(each[1:]))
        for each in map(str.lower, trusted)
    )


async def check_secrets(settings: Settings) -> Findings:
    """Check that secrets and key pairs are long enough, readable, and for their owner alone."""
    return [*_secrets(settings)]


def _secrets(settings: Settings) -> Iterator[Finding]:
    name = "secrets"
    if settings.keeps_secret and not (settings.data_dir / "secret.key").exists():
        yield good(name, f"SECRET_KEY is generated under {settings.data_dir} at the first start")
    weak = is_guessable(settings.secret_key.get_secret_value())
    yield advised(
        name,
        not weak,
        f"SECRET_KEY is {'too short, or can be guessed' if weak else 'long and random enough'}",
        f"Production wants {MIN_SECRET_BYTES} random bytes:"
        " python3 -c 'import secrets; print(secrets.token_urlsafe(48))'",
    )
    try:
        pairs = settings.key_pairs
    except (ValueError, OSError) as error:
        if settings.in_development and not (settings.data_dir / "keys").exists():
            message = f"key pairs are generated under {settings.data_dir} at the first start"
            yield good(name, message)
            return
        yield failure(name, str(error), "Run scripts/rotate-key, or put the right file back.")
    else:
        if pairs:
            yield good(name, f"{len(pairs)} key pairs")
    for path in _key_files(settings.data_dir):
        mode = stat.S_IMODE(path.stat().st_mode)
        yield judged(
            name,
            not mode & 0o077,
            f"{path} has mode {mode:o}",
            f"Others may read it: chmod 600 {path}",
        )


def _key_files(data_dir: Path) -> list[Path]:
    found = [data_dir / "secret.key", *sorted((data_dir / "keys").glob("*.pem"))]
    return [path for path in found if path.is_file()]


async def check_disk(settings: Settings) -> Findings:
    """Check that DATA_DIR can be written to, and has room."""
    return [*_disk(settings.data_dir)]


def _disk(folder: Path) -> Iterator[Finding]:
    name = "disk"
    if problem := _not_writable(folder):
        yield failure(
            name,
            f"nothing can be written to {folder}: {problem}",
            "Create the folder of DATA_DIR, owned by the user who runs the app.",
        )
        return
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(existing).free
    message, remedy = f"{free / 2**30:.1f} GiB free under {folder}", "Make room, or move DATA_DIR."
    if free < MIN_FREE_BYTES:
        yield failure(name, message, remedy)
    else:
        yield advised(name, free >= WANTED_FREE_BYTES, message, remedy)


def _not_writable(folder: Path) -> str | None:
    """Return why no file can be created there: tried, as rights alone do not tell, and undone."""
    missing_folders = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        return error.strerror or type(error).__name__
    finally:
        for each in missing_folders:
            with suppress(OSError):
                each.rmdir()
    return None


async def check_files(settings: Settings) -> Findings:
    """Check that other users of the machine cannot reach the database and the mails."""
    folder = settings.data_dir
    if not folder.is_dir():
        return []
    mode = stat.S_IMODE(folder.stat().st_mode)
    message = f"{folder} has mode {mode:o}"
    return [advised("files", not mode & 0o007, message, f"Others can enter: chmod 700 {folder}")]


Check = Callable[[Settings], Awaitable[Findings]]
CHECKS: Mapping[str, Check] = {
    "environment": check_environment,
    "addresses": check_addresses,
    "secrets": check_secrets,
    "disk": check_disk,
    "files": check_files,
}
