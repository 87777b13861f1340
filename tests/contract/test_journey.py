"""The main use cases end to end, as a frontend and an administrator perform them."""

from __future__ import annotations

from tests.support.client import PASSWORD, Client


async def test_a_frontend_and_an_admin_live_together(client: Client) -> None:
    admin = await client.admin()
    account = await client.register("Ana")
    mails = (await admin.get("/outbox")).json()["items"]
    assert [mail["recipient"] for mail in mails if mail["recipient"] == account["email"]]

    ana = await client.person(account)
    for number in range(3):
        await ana.write(f"Post {number}")
    first = (await client.get("/posts", params={"page_size": 2, "sort": "title"})).json()
    assert (first["total"], first["total_pages"], first["has_next"]) == (3, 2, True)
    second = (
        await client.get("/posts", params={"page_size": 2, "cursor": first["next_cursor"]})
    ).json()
    titles = [post["title"] for post in first["items"] + second["items"]]
    assert titles == ["Post 0", "Post 1", "Post 2"]
    assert second["next_cursor"] is None
    assert second["total"] is None

    assert (await ana.get("/users")).status_code == 403
    role = (await admin.post("/roles", {"name": "reader", "permissions": ["users:read"]})).json()
    given = await admin.put(f"/users/{ana.id}/roles/{role['id']}")
    assert given.status_code == 204
    assert (await ana.get("/users")).status_code == 200, "the same token, at the next request"

    assert (await admin.delete(f"/users/{ana.id}")).status_code == 204
    assert (await ana.get("/users/me")).status_code == 401
    assert (await client.get("/posts")).json()["total"] == 0
    trash = (await admin.get("/posts", params={"deleted": True})).json()
    assert trash["total"] == 3

    restored = await admin.post(f"/users/{ana.id}/restore")
    assert restored.status_code == 200
    assert restored.json()["deleted_at"] is None
    assert (await client.get("/posts")).json()["total"] == 3
    assert (await ana.get("/users/me")).status_code == 401, "old tokens stay dead"
    assert await client.login(ana.email, PASSWORD)
