// A careful Fastify app over the same SQLite database, for `python -m benchmarks.beside`.
// It checks tokens, sessions, users and permissions, and answers the same works in the same shapes.
// FTS=1: it keeps the search index too, with the words of a new post as they are.

import Database from "better-sqlite3";
import { createVerifier } from "fast-jwt";
import Fastify from "fastify";

const { DATABASE, SECRET, PORT, FTS } = process.env;
const db = new Database(DATABASE);
for (const pragma of ["journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=5000"])
  db.pragma(pragma);

const verify = createVerifier({
  key: SECRET,
  algorithms: ["HS256"],
  allowedIss: "cimiento",
  allowedAud: "cimiento-api",
  cache: 1000,
});

const POST = `SELECT p.id, p.title, p.content, p.status, p.version, p.published_at, p.created_at,
  p.updated_at, p.deleted_at, u.id AS author_id, u.name AS author_name
  FROM posts p JOIN users u ON u.id = p.author_id`;
const TAGS = "SELECT t.name FROM post_tags pt JOIN tags t ON t.id = pt.tag_id";
const VISIBLE = "p.deleted_at IS NULL AND p.status = 'published'";
const find = {
  caller: db.prepare(`SELECT u.id, u.email, u.name, u.locale, u.created_at, u.updated_at
    FROM sessions s JOIN users u ON u.id = s.user_id
    WHERE s.id = ? AND u.id = ? AND s.expires_at > ? AND s.ended_at IS NULL AND u.is_active AND u.deleted_at IS NULL`),
  roles: db.prepare(`SELECT r.id, r.name FROM user_roles ur JOIN roles r ON r.id = ur.role_id
    WHERE ur.user_id = ? AND r.deleted_at IS NULL ORDER BY r.name`),
  permissions: db.prepare(`SELECT DISTINCT rp.permission FROM user_roles ur
    JOIN role_permissions rp ON rp.role_id = ur.role_id WHERE ur.user_id = ? ORDER BY 1`).pluck(),
  post: db.prepare(`${POST} WHERE p.id = ? AND ${VISIBLE}`),
  tags: db.prepare(`${TAGS} WHERE pt.post_id = ? ORDER BY t.name`).pluck(),
  page: db.prepare(`${POST} WHERE p.id IN (SELECT p.id FROM posts p WHERE ${VISIBLE}
    ORDER BY p.created_at DESC, p.id DESC LIMIT ? OFFSET ?) ORDER BY p.created_at DESC, p.id DESC`),
  total: db.prepare(`SELECT count(*) FROM posts p WHERE ${VISIBLE}`).pluck(),
};
const insert = db.prepare(`INSERT INTO posts
  (author_id, title, content, status, version, deleted_with_author, published_at, created_at, updated_at)
  VALUES (?, ?, ?, 'published', 1, 0, ?, ?, ?)`);
const index = db.prepare("INSERT INTO post_search (id, words) VALUES (?, ?)");
const words = (text) =>
  [...new Set(text.normalize("NFKD").toLowerCase().match(/[a-z0-9]+/g) ?? [])].join(" ");
const create = db.transaction((author, title, content) => {
  const now = new Date().toISOString().replace("T", " ").replace("Z", "000");
  const id = Number(insert.run(author, title, content, now, now, now).lastInsertRowid);
  if (FTS) index.run(id, words(`${title} ${content}`));
  return find.post.get(id);
});

const moment = (text) => text && `${text.replace(" ", "T")}Z`;
const shown = (row) => ({
  id: row.id,
  title: row.title,
  content: row.content,
  status: row.status,
  tags: find.tags.all(row.id),
  author: { id: row.author_id, name: row.author_name },
  version: row.version,
  published_at: moment(row.published_at),
  created_at: moment(row.created_at),
  updated_at: moment(row.updated_at),
  deleted_at: moment(row.deleted_at),
});

const text = { type: "string" };
const whole = { type: "integer" };
const maybe = { type: ["string", "null"] };
const names = { type: "array", items: text };
const post = {
  type: "object",
  properties: {
    ...{ id: whole, title: text, content: text, status: text, tags: names, version: whole },
    author: { type: "object", properties: { id: whole, name: text } },
    ...{ published_at: maybe, created_at: text, updated_at: text, deleted_at: maybe },
  },
};
const page = {
  type: "object",
  properties: {
    items: { type: "array", items: post },
    ...{ total: whole, page: whole, page_size: whole, total_pages: whole },
    ...{ has_next: { type: "boolean" }, has_prev: { type: "boolean" } },
  },
};
const me = {
  type: "object",
  properties: {
    ...{ id: whole, email: text, name: text, locale: text, created_at: text, updated_at: text },
    roles: {
      type: "array",
      items: { type: "object", properties: { id: whole, name: text } },
    },
    permissions: names,
  },
};
const id = { type: "object", properties: { id: { type: "integer", minimum: 1 } } };
const query = {
  type: "object",
  properties: {
    page: { type: "integer", minimum: 1, default: 1 },
    page_size: { type: "integer", minimum: 1, maximum: 100, default: 20 },
  },
};
const body = {
  type: "object",
  required: ["title", "content"],
  additionalProperties: false,
  properties: {
    title: { type: "string", minLength: 1, maxLength: 200 },
    content: { type: "string", minLength: 1, maxLength: 50_000 },
  },
};

const app = Fastify();
app.addHook("onRequest", async (request, reply) => {
  if (request.url === "/health") return;
  const [scheme, token] = (request.headers.authorization ?? "").split(" ");
  if (scheme !== "Bearer") return reply.code(401).send({ code: "not_authenticated" });
  const claims = verify(token);
  const now = new Date().toISOString().replace("T", " ");
  request.user = find.caller.get(Number(claims.sid), Number(claims.sub), now);
  if (!request.user) return reply.code(401).send({ code: "invalid_token" });
});

app.get("/health", async () => ({ status: "ok" }));
app.get("/api/v1/posts/:id", { schema: { params: id, response: { 200: post } } }, async (request, reply) => {
  const row = find.post.get(request.params.id);
  return row ? shown(row) : reply.code(404).send({ code: "not_found" });
});
app.get("/api/v1/posts", { schema: { querystring: query, response: { 200: page } } }, async (request) => {
  const { page, page_size } = request.query;
  const items = find.page.all(page_size, (page - 1) * page_size).map(shown);
  const total = find.total.get();
  const total_pages = Math.ceil(total / page_size);
  return { items, total, page, page_size, total_pages, has_next: page < total_pages, has_prev: page > 1 };
});
app.get("/api/v1/users/me", { schema: { response: { 200: me } } }, async ({ user }) => ({
  ...user,
  created_at: moment(user.created_at),
  updated_at: moment(user.updated_at),
  roles: find.roles.all(user.id),
  permissions: find.permissions.all(user.id),
}));
app.post("/api/v1/posts", { schema: { body, response: { 201: post } } }, async (request, reply) => {
  if (!find.permissions.all(request.user.id).includes("posts:write"))
    return reply.code(403).send({ code: "insufficient_scope" });
  const { title, content } = request.body;
  return reply.code(201).send(shown(create.immediate(request.user.id, title, content)));
});

process.on("SIGINT", () => process.exit());
await app.listen({ host: "127.0.0.1", port: Number(PORT) });
console.log("Application startup complete");
