// The server is killed while mutations run, again and again: each counts once.

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";

import { api, bodies, follow, httpClient, liveClient, message, newChannel, until, within } from "./support.mjs";

const LOOPS = 4;
const PAGE = 500;
/** After the last kill everybody is back. */
const SETTLED_MS = 60_000;
const STOP_MS_MAX = 3_000;
const ACCOUNT_BALANCE = 1_000_000_000;

export async function kills({ server, url, kills }) {
  const channel = newChannel();
  const http = () => httpClient(url);
  await http().mutation(api.accounts.seed, { accounts: 2, balance: ACCOUNT_BALANCE });
  const clients = [liveClient(url), liveClient(url)];
  const seen = follow(clients[0], api.messages.list, { channel, limit: 1 });
  await until(() => seen.values.length > 0, "the first result");

  const sent = [];
  let [done, transfers, stopped] = [0, 0, false];
  const loops = clients.flatMap((client, number) => [
    ...Array.from({ length: LOOPS }, async (_, loop) => {
      for (let count = 0; !stopped; count += 1) {
        const body = `${number}/${loop}/${count}`;
        sent.push(body);
        await client.mutation(api.messages.send, message(channel, body));
        done += 1;
      }
    }),
    (async () => {
      while (!stopped) {
        await client.mutation(api.accounts.transfer, { from: 0, to: 1, amount: 1 });
        transfers += 1;
      }
    })(),
  ]);
  const working = Promise.all(loops);
  // A mutation that fails is told at once.
  working.catch(() => {});

  const failed = working.then(() => {});
  for (let kill = 0; kill < kills; kill += 1) {
    const before = [done, transfers];
    const progress = until(() => done > before[0] && transfers > before[1], `progress before kill ${kill}`, SETTLED_MS);
    await Promise.race([progress, failed]);
    await sleep(Math.random() * 200);
    const inFlight = sent.length - done;
    assert.ok(inFlight > 0, "mutations are in flight");
    await server.kill();
    await sleep(Math.random() * 300);
    await server.start();
  }
  stopped = true;
  await within(working, "all mutations' answers", SETTLED_MS);

  assert.equal(done, sent.length);
  const found = await everything(http(), channel);
  assert.equal(new Set(found).size, found.length, "no message is there twice");
  assert.deepEqual([...found].sort(), [...sent].sort(), "every message is there");
  const { balances } = await http().query(api.accounts.overview, { first: 2 });
  assert.deepEqual(balances, [ACCOUNT_BALANCE - transfers, ACCOUNT_BALANCE + transfers], "every transfer counts once");
  await clients[1].mutation(api.messages.send, message(channel, "the last"));
  await until(() => bodies(seen.values.at(-1)).includes("the last"), "the subscription lives", SETTLED_MS);
  assert.deepEqual(seen.errors, []);
  await Promise.all(clients.map((client) => client.close()));
  return `${kills} kills, ${sent.length} messages and ${transfers} transfers`;
}

async function everything(client, channel) {
  const found = [];
  let page = { continueCursor: null, isDone: false };
  while (!page.isDone) {
    const paginationOpts = { numItems: PAGE, cursor: page.continueCursor };
    page = await client.query(api.messages.page, { channel, paginationOpts });
    found.push(...bodies(page.page));
  }
  return found;
}

/** A server that is told to stop does not wait for those that listen; they come back when it does. */
export async function restart({ server, url }) {
  const channel = newChannel();
  const client = liveClient(url);
  const seen = follow(client, api.messages.list, { channel });
  await until(() => seen.values.length > 0, "the first result");
  const events = await fetch(`${url}/api/subscribe/messages:list`, { method: "POST", body: JSON.stringify({ channel }) });
  const reader = events.body.getReader();
  await reader.read();
  const sending = client.mutation(api.messages.send, message(channel, "on the way"));
  const took = await server.stop();
  assert.ok(took < STOP_MS_MAX, `the server stopped in ${Math.round(took)} ms`);
  const drained = async () => {
    while (!(await reader.read()).done);
  };
  await within(drained(), "the end of the event stream");
  const later = client.mutation(api.messages.send, message(channel, "while it was away"));
  await server.start();
  await within(Promise.all([sending, later]), "both mutations");
  await until(() => seen.values.at(-1).length === 2, "both messages");
  assert.deepEqual(bodies(seen.values.at(-1)), ["on the way", "while it was away"]);
  await client.close();
  return `stopped in ${Math.round(took)} ms`;
}
