"""Tags: created by use, normalized, counted."""

from __future__ import annotations

from typing import Any

from tests.support.client import Client


async def counts(client: Client, **params: Any) -> dict[str, int]:
    """Return the tags of the listing and their counts, in order."""
    response = await client.get("/tags", params=params)
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["total"] == len(body["items"])
    return {tag["name"]: tag["post_count"] for tag in body["items"]}


async def test_one_tag_written_in_many_ways_is_one_tag(client: Client) -> None:
    ana = await client.user()
    written = ["Ciencia  Ficción", " ciencia ficción ", "CIENCIA\tFICCIÓN", "ciencia ficcio\u0301n"]
    assert (await ana.write(tags=written))["tags"] == ["ciencia ficción"]
    assert (await ana.write(tags=["CIENCIA ficción"]))["tags"] == ["ciencia ficción"]
    assert await counts(client) == {"ciencia ficción": 2}
    for tag in written:
        posts = (await client.get("/posts", params={"tag": tag})).json()
        assert posts["total"] == 2, tag


async def test_accents_and_signs_tell_tags_apart(client: Client) -> None:
    ana = await client.user()
    tags = sorted(["ano", "año", "c", "c#", "c++", "😀", "😁"])
    assert (await ana.write(tags=tags))["tags"] == tags
    assert await counts(client) == dict.fromkeys(tags, 1)
    for tag in tags:
        assert (await client.get("/posts", params={"tag": tag})).json()["total"] == 1


async def test_only_published_live_posts_count(client: Client) -> None:
    """A22: the counts do not reveal drafts and the trash, not to their authors either."""
    admin, ana = await client.admin(), await client.user()
    first = await ana.write(tags=["a", "b"])
    second = await ana.write(tags=["a"])
    await ana.write(status="draft", tags=["a", "secret"])
    both, one = {"a": 2, "b": 1}, {"a": 1, "b": 1}
    for person in (client, ana, admin):
        assert await counts(person) == both
    await ana.delete(f"/posts/{second['id']}/publication")
    assert await counts(client) == one
    await ana.put(f"/posts/{second['id']}/publication")
    await ana.delete(f"/posts/{second['id']}")
    assert await counts(client) == one
    await ana.post(f"/posts/{second['id']}/restore")
    await ana.patch(f"/posts/{first['id']}", {"tags": []})
    assert await counts(client) == {"a": 1}
    await admin.delete(f"/users/{ana.id}")
    assert await counts(client) == {}
    await admin.post(f"/users/{ana.id}/restore")
    assert await counts(client) == {"a": 1}


async def test_tags_are_sorted_and_searched(client: Client) -> None:
    ana = await client.user()
    for tags in (["aa", "bb", "cc"], ["bb", "cc"], ["bb", "50%", "x_y"]):
        await ana.write(tags=tags)
    await ana.write(tags=["x\\y", "x/y"])
    by_name = list(await counts(client))
    assert [tag for tag in by_name if tag.isalpha()] == ["aa", "bb", "cc"]
    assert list(await counts(client, sort="-name")) == by_name[::-1]
    assert list(await counts(client, sort="-post_count"))[:2] == ["bb", "cc"]
    assert list(await counts(client, sort="post_count"))[-2:] == ["cc", "bb"]
    assert await counts(client, q="nothing") == {}
    assert (await client.get("/tags", params={"sort": "id"})).status_code == 422
