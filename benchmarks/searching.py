"""Searches at size: `python -m benchmarks.searching --databases mariadb --posts 1000000`.

Makes a database of its own with words of every rarity, serves it, and asks one search at a time
over HTTP; prints the median and the 95th percentile of each kind.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated, Any

import httpx2
import typer
from sqlalchemy import Engine, insert, text

from app.core.words import index_words
from app.models.posts import Post
from app.models.search import PostSearch
from benchmarks.databases import DATABASES, answers, filled
from benchmarks.dataset import DataSet
from benchmarks.machine import alone, look_around
from benchmarks.servers import serving_app
from benchmarks.targets import API

_BATCH = 5_000
# By the word, in what share of the posts it is.
WORDS = {
    "ubiquitous": 0.95,
    "frequent": 0.3,
    "usual": 0.03,
    "seldom": 0.003,
    "rarely": 0.0001,
}
_FILLING = [f"filler{number}" for number in range(3_000)]
SEARCHES = {
    "absent": {"q": "nowhere"},
    **{word: {"q": word} for word in WORDS},
    "two words": {"q": "frequent seldom"},
    "a beginning": {"q": "fil"},
    "frequent, by title": {"q": "frequent", "sort": "title"},
    "seldom, by title": {"q": "seldom", "sort": "title"},
    "usual, page 20": {"q": "usual", "page": "20"},
    "frequent, page 500": {"q": "frequent", "page": "500"},
    "usual, page 500": {"q": "usual", "page": "500"},
    "frequent, of one author": {"q": "frequent", "author_id": "77"},
    "no search": {},
}


def main(
    databases: Annotated[str, typer.Option(help="Those that answer, if not said.")] = "",
    posts: int = 100_000,
    rounds: int = 12,
) -> None:
    """Time searches, one after the other."""
    machine = look_around()
    names = databases.split(",") if databases else [name for name in DATABASES if answers(name)]
    with alone(), tempfile.TemporaryDirectory() as directory:
        for name in names:
            with filled(name, DataSet(1_000, 100), machine, Path(directory)) as filled_db:
                began = time.monotonic()
                add_posts(filled_db.engine, posts)
                typer.echo(f"{name}: {posts} posts in {time.monotonic() - began:.0f} s")
                with serving_app(machine, filled_db.environment, Path(directory)) as server:
                    _ask(server.url, rounds)


def add_posts(engine: Engine, total: int) -> None:
    """Make posts with words of every rarity."""
    for rows in _batches(total):
        with engine.begin() as connection:
            connection.execute(insert(Post), rows)
            words = [
                {"id": row["id"], "words": index_words(row["title"], row["content"])}
                for row in rows
            ]
            connection.execute(insert(PostSearch), words)
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        match engine.dialect.name:
            case "postgresql":
                connection.execute(text("VACUUM ANALYZE"))
            case "mysql":
                connection.execute(text("ANALYZE TABLE posts, post_search")).all()


def _batches(total: int) -> Iterator[list[dict[str, Any]]]:
    chance = random.Random(7)  # noqa: S311  no secret
    data = DataSet(1_000, 100)
    for start in range(1_000, 1_000 + total, _BATCH):
        yield [_post(data, number, chance) for number in range(start, start + _BATCH)]


def _post(data: DataSet, number: int, chance: random.Random) -> dict[str, Any]:
    words = [word for word, share in WORDS.items() if chance.random() < share]
    moment = data.created_at(number)
    return {
        "id": number,
        "author_id": data.author(number),
        "title": f"{chance.choice(_FILLING)} {number}",
        "content": " ".join(words + chance.choices(_FILLING, k=25)),
        "status": "published" if chance.random() < 0.9 else "draft",  # noqa: PLR2004 a tenth
        "published_at": moment,
        "created_at": moment,
        "updated_at": moment,
    }


def _ask(url: str, rounds: int) -> None:
    with httpx2.Client(base_url=url, timeout=20) as client:
        for name, params in SEARCHES.items():
            times = []
            answer = client.get(f"{API}/posts", params=params)
            for _ in range(rounds):
                began = time.perf_counter()
                answer = client.get(f"{API}/posts", params=params)
                times.append((time.perf_counter() - began) * 1e3)
            body = answer.json()
            total = f"{body.get('total')} {'' if body.get('total_is_exact') else 'at least'}"
            p95 = quantiles(times, n=20)[-1]
            line = f"{median(times):8.1f} {p95:8.1f} {max(times):8.1f} ms"
            typer.echo(f"  {name:26}{line}  {answer.status_code} {total}")


if __name__ == "__main__":
    typer.run(main)
