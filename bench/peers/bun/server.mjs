// The peer on Bun: Bun.serve and Bun.SQL, written as its manual writes it. Same tables and SQL as ../../src/tables.rs.

import { SQL } from "bun";

const ATTEMPTS_MAX = 20;
const BACKOFF_MS_MAX = 50;
const CONFLICTS = new Set(["40001", "40P01"]);

const { BENCH_DATABASE_URL, BENCH_SCHEMA = "bench", BENCH_PORT, BENCH_POOL = "16" } = process.env;
const sql = new SQL(BENCH_DATABASE_URL, { max: Number(BENCH_POOL) });
const messages = sql(`${BENCH_SCHEMA}.messages`);
const accounts = sql(`${BENCH_SCHEMA}.accounts`);

class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

const document = (row) => ({ _id: row._id, _creationTime: row._creation_time, ...row.data });
const answer = (data) => Response.json({ ok: true, data });

async function empty(request) {
  await request.json();
  return answer(null);
}

async function get(request) {
  const { id } = await request.json();
  const [row] = await sql`select _id, _creation_time, data from ${messages} where _id = ${id}`;
  if (!row) throw new Refusal(404, "there is no such document");
  return answer(document(row));
}

async function list(request) {
  const { channel, limit } = await request.json();
  const rows = await sql`
    select _id, _creation_time, data from ${messages} where convoke.key(data->'channel') = convoke.key(${JSON.stringify(channel)}::text::jsonb)
    order by _creation_time desc, _id desc limit ${limit}`;
  return answer(rows.map(document).reverse());
}

async function transfer(request) {
  const body = await request.json();
  for (let attempt = 1; ; attempt += 1) {
    try {
      return answer(await transferOnce(body));
    } catch (error) {
      if (!CONFLICTS.has(error.errno) || attempt >= ATTEMPTS_MAX) throw error;
      await Bun.sleep(Math.random() * Math.min(2 ** attempt, BACKOFF_MS_MAX));
    }
  }
}

function transferOnce({ from, to, amount }) {
  return sql.begin("isolation level serializable", async (tx) => {
    const rows = await tx`
      select _id, data from ${accounts} where convoke.key(data->'number') in (convoke.key(${from}::bigint::text::jsonb), convoke.key(${to}::bigint::text::jsonb))
      order by convoke.key(data->'number'), _creation_time, _id limit 2`;
    const payer = rows.find((row) => row.data.number === from);
    const payee = rows.find((row) => row.data.number === to);
    if (!payer || !payee) throw new Refusal(404, "there is no such account");
    if (payer.data.balance < amount) throw new Refusal(400, "the account holds less");
    const after = { from: payer.data.balance - amount, to: payee.data.balance + amount };
    await tx`
      update ${accounts} as t set data = t.data || w.fields
      from (values (${payer._id}::uuid, jsonb_build_object('balance', ${after.from}::bigint)),
                   (${payee._id}::uuid, jsonb_build_object('balance', ${after.to}::bigint))) as w(id, fields)
      where t._id = w.id`;
    return after;
  });
}

Bun.serve({
  hostname: "127.0.0.1",
  port: Number(BENCH_PORT),
  routes: {
    "/empty": { POST: empty },
    "/get": { POST: get },
    "/list": { POST: list },
    "/transfer": { POST: transfer },
  },
  error(error) {
    return Response.json({ ok: false, error: { message: error.message } }, { status: error.status ?? 500 });
  },
});
