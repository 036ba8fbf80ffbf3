// The peer on Node: Fastify and postgres.js, written as their manuals write it. Same tables and SQL as ../../src/tables.rs.

import Fastify from "fastify";
import postgres from "postgres";

const ATTEMPTS_MAX = 20;
const BACKOFF_MS_MAX = 50;
const CONFLICTS = new Set(["40001", "40P01"]);

const { BENCH_DATABASE_URL, BENCH_SCHEMA = "bench", BENCH_PORT, BENCH_POOL = "16" } = process.env;
const sql = postgres(BENCH_DATABASE_URL, { max: Number(BENCH_POOL), onnotice: () => {} });
const messages = sql(`${BENCH_SCHEMA}.messages`);
const accounts = sql(`${BENCH_SCHEMA}.accounts`);

const app = Fastify();
const document = (row) => ({ _id: row._id, _creationTime: row._creation_time, ...row.data });
const refusal = (status, message) => Object.assign(new Error(message), { statusCode: status });

app.setErrorHandler((error, request, reply) => {
  reply.code(error.statusCode ?? 500).send({ ok: false, error: { message: error.message } });
});

app.post("/empty", async () => ({ ok: true, data: null }));

app.post("/get", async (request) => {
  const [row] = await sql`select _id, _creation_time, data from ${messages} where _id = ${request.body.id}`;
  if (!row) throw refusal(404, "there is no such document");
  return { ok: true, data: document(row) };
});

app.post("/list", async (request) => {
  const { channel, limit } = request.body;
  const rows = await sql`
    select _id, _creation_time, data from ${messages} where convoke.key(data->'channel') = convoke.key(${sql.json(channel)}::jsonb)
    order by _creation_time desc, _id desc limit ${limit}`;
  return { ok: true, data: rows.map(document).reverse() };
});

app.post("/transfer", async (request) => {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return { ok: true, data: await transfer(request.body) };
    } catch (error) {
      if (!CONFLICTS.has(error.code) || attempt >= ATTEMPTS_MAX) throw error;
      const backoff = Math.min(2 ** attempt, BACKOFF_MS_MAX);
      await new Promise((resolve) => setTimeout(resolve, Math.random() * backoff));
    }
  }
});

function transfer({ from, to, amount }) {
  return sql.begin("isolation level serializable", async (tx) => {
    const rows = await tx`
      select _id, data from ${accounts} where convoke.key(data->'number') in (convoke.key(${tx.json(from)}::jsonb), convoke.key(${tx.json(to)}::jsonb))
      order by convoke.key(data->'number'), _creation_time, _id limit 2`;
    const payer = rows.find((row) => row.data.number === from);
    const payee = rows.find((row) => row.data.number === to);
    if (!payer || !payee) throw refusal(404, "there is no such account");
    if (payer.data.balance < amount) throw refusal(400, "the account holds less");
    const after = { from: payer.data.balance - amount, to: payee.data.balance + amount };
    await tx`
      update ${accounts} as t set data = t.data || w.fields
      from (values (${payer._id}::uuid, ${tx.json({ balance: after.from })}::jsonb),
                   (${payee._id}::uuid, ${tx.json({ balance: after.to })}::jsonb)) as w(id, fields)
      where t._id = w.id`;
    return after;
  });
}

await app.listen({ host: "127.0.0.1", port: Number(BENCH_PORT) });
