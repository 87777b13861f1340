"""Database programs that tests install: each writes down how it was called."""

from __future__ import annotations

from pathlib import Path

OLD = "mariadb-dump  Ver 10.19 Distrib 10.11.19-MariaDB, for debian-linux-gnu (x86_64)"


def install(folder: Path, name: str, *lines: str, version: str = OLD) -> None:
    """A program that writes down its arguments, the password it was given, and what it is fed."""
    program = folder / name
    heard = folder / "heard"
    body = [
        f"case $1 in --version) echo '{version}'; exit 0;; esac",
        f'echo "$@" "[$PGPASSWORD]" >> {heard}',
        f'case $1 in --defaults-file=*) f=${{1#*=}}; /bin/ls -l "$f" >> {heard};'
        f' /bin/cat "$f" >> {heard};; esac',
        *lines,
    ]
    program.write_text("#!/bin/sh\n" + "\n".join(body) + "\n")
    program.chmod(0o755)


def heard(folder: Path) -> str:
    return (folder / "heard").read_text()
