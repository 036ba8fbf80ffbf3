// ConvexClient: the WebSocket.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { ConvexError } from "convex/values";

import { api, bodies, failure, follow, httpClient, liveClient, message, newChannel, until, within } from "./support.mjs";

const WRITES = 50;

export async function subscription({ url }) {
  const [ada, bob] = [liveClient(url), liveClient(url)];
  const channel = newChannel();
  const [seenByAda, seenByBob] = [ada, bob].map((client) => follow(client, api.messages.list, { channel }));
  await until(() => seenByAda.values.length > 0 && seenByBob.values.length > 0, "the first results");
  await ada.mutation(api.messages.send, message(channel, "from Ada"));
  await until(() => bodies(seenByBob.values.at(-1)).includes("from Ada"), "Ada's message at Bob's");
  await bob.mutation(api.messages.send, message(channel, "from Bob"));
  await until(() => bodies(seenByAda.values.at(-1)).includes("from Bob"), "Bob's message at Ada's");
  assert.deepEqual(seenByAda.values.map((value) => value.length), [0, 1, 2], "each result once");
  assert.deepEqual(bodies(await ada.query(api.messages.list, { channel })), ["from Ada", "from Bob"]);
  seenByAda.stop();
  await bob.mutation(api.messages.send, message(channel, "unseen"));
  await until(() => seenByBob.values.at(-1).length === 3, "the third message");
  assert.equal(seenByAda.values.length, 3, "nothing comes after the end of a subscription");
  assert.deepEqual([...seenByAda.errors, ...seenByBob.errors], []);
  await Promise.all([ada.close(), bob.close()]);
}

/** When a mutation's promise is kept, the client shows what it did. */
export async function ownWrites({ url }) {
  const client = liveClient(url);
  const other = liveClient(url);
  const channel = newChannel();
  const seen = follow(client, api.messages.list, { channel, limit: 1000 });
  await until(() => seen.values.length > 0, "the first result");
  let stopped = false;
  const noise = (async () => {
    for (let number = 0; !stopped; number += 1) {
      await other.mutation(api.messages.send, message(channel, `noise ${number}`));
    }
  })();
  for (let number = 0; number < WRITES; number += 1) {
    const body = `own ${number}`;
    await within(client.mutation(api.messages.send, message(channel, body)), body);
    assert.ok(bodies(seen.values.at(-1)).includes(body), `${body} is shown when its mutation is done`);
  }
  stopped = true;
  await noise;
  await Promise.all([client.close(), other.close()]);
}

export async function errors({ url }) {
  const client = liveClient(url);
  const channel = newChannel();
  const own = await failure(client.mutation(api.messages.send, message(channel, "")));
  assert.ok(own instanceof ConvexError, String(own));
  assert.deepEqual(own.data, { code: "EMPTY_BODY", message: "a message needs a body" });
  const limit = await failure(client.query(api.messages.list, { channel, limit: 0 }));
  assert.ok(limit instanceof ConvexError, String(limit));
  assert.deepEqual(limit.data.data, { limit: 0, max: 1000 });
  const missing = await failure(client.query(api.messages.nothing, {}));
  assert.match(missing.message, /Could not find public function/);
  const notThere = await failure(client.action(api.messages.nothing, {}));
  assert.match(notThere.message, /Could not find public function/);
  // One subscription that fails leaves the others alone.
  const [failing, working] = [0, 10].map((limit) => follow(client, api.messages.list, { channel, limit }));
  await until(() => failing.errors.length > 0 && working.values.length > 0, "an error and a result");
  assert.ok(failing.errors[0] instanceof ConvexError);
  assert.equal(failing.errors[0].data.code, "INVALID_LIMIT");
  await client.mutation(api.messages.send, message(channel, "still here"));
  assert.deepEqual(bodies(working.values.at(-1)), ["still here"]);
  await client.close();
}

/** What another program writes is pushed as well. */
export async function byPsql({ url, server }) {
  const client = liveClient(url);
  const channel = newChannel();
  const seen = follow(client, api.messages.list, { channel });
  await until(() => seen.values.length > 0, "the first result");
  const document = JSON.stringify({ channel, author: "psql", body: "by psql" });
  const psql = (statement) => execFileSync("psql", [server.database, "-qc", statement]);
  try {
    psql(`insert into demo.messages (data) values ('${document}')`);
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    await client.close();
    return "psql is not installed";
  }
  await until(() => seen.values.at(-1).length === 1, "the row");
  psql(`delete from demo.messages where data->>'channel' = '${channel}'`);
  await until(() => seen.values.at(-1).length === 0, "the row to go");
  await client.close();
}

/** Pages that are shown together stay together: nothing is missing between two of them, and nothing is there twice. */
export async function pages({ url }) {
  const client = liveClient(url);
  const http = httpClient(url);
  const channel = newChannel();
  const send = (body) => http.mutation(api.messages.send, message(channel, body));
  for (const body of ["1", "2", "3", "4", "5", "6"]) await send(body);
  const open = (cursor, numItems) => {
    const paginationOpts = { numItems, cursor, id: 1 };
    return follow(client, api.messages.page, { channel, paginationOpts });
  };
  const first = open(null, 2);
  await until(() => first.values.length > 0, "the first page");
  const second = open(first.values.at(-1).continueCursor, 2);
  await until(() => second.values.length > 0, "the second page");
  const shown = () => [first, second].flatMap(({ values }) => bodies(values.at(-1).page));
  assert.deepEqual(shown(), ["6", "5", "4", "3"]);
  await send("7");
  await until(() => shown().includes("7"), "the new message");
  assert.deepEqual(shown(), ["7", "6", "5", "4", "3"]);
  await client.close();
}
