// ConvexHttpClient.

import assert from "node:assert/strict";
import { ConvexError } from "convex/values";

import { api, bodies, failure, httpClient, message, newChannel } from "./support.mjs";

export async function calls({ url }) {
  const client = httpClient(url);
  const channel = newChannel();
  const id = await client.mutation(api.messages.send, message(channel, "one"));
  assert.equal(typeof id, "string");
  const [found] = await client.query(api.messages.list, { channel });
  assert.equal(found._id, id);
  assert.equal(typeof found._creationTime, "number");
  assert.deepEqual(await client.query(api.messages.list, { channel: newChannel() }), []);
}

/** Queries of one client see one snapshot, which has what was written before. */
export async function consistent({ url }) {
  const client = httpClient(url);
  const channel = newChannel();
  for (const body of ["one", "two", "three"]) {
    await client.mutation(api.messages.send, message(channel, body));
    const found = await httpClient(url).consistentQuery(api.messages.list, { channel });
    assert.equal(found.at(-1).body, body);
  }
}

/** Mutations of one client run in the order in which they were asked for. */
export async function order({ url }) {
  const client = httpClient(url);
  const channel = newChannel();
  const expected = Array.from({ length: 20 }, (_, number) => `number ${number}`);
  await Promise.all(expected.map((body) => client.mutation(api.messages.send, message(channel, body))));
  assert.deepEqual(bodies(await client.query(api.messages.list, { channel })), expected);
}

export async function errors({ url }) {
  const client = httpClient(url);
  const own = await failure(client.mutation(api.messages.send, message(newChannel(), "")));
  assert.ok(own instanceof ConvexError, String(own));
  assert.deepEqual(own.data, { code: "EMPTY_BODY", message: "a message needs a body" });
  const missing = await failure(client.query(api.messages.nothing, {}));
  assert.ok(!(missing instanceof ConvexError));
  assert.match(missing.message, /Could not find public function for 'messages:nothing'/);
  const misfit = await failure(client.query(api.messages.list, { channel: 1 }));
  assert.match(misfit.message, /ArgumentValidationError/);
}

/** Beyond 2^53 an integer is a BigInt, there and back. */
export async function integers({ url }) {
  const client = httpClient(url);
  await client.mutation(api.accounts.seed, { accounts: 2, balance: 100 });
  const amount = 2n ** 60n + 1n;
  const error = await failure(client.mutation(api.accounts.transfer, { from: 0, to: 1, amount }));
  assert.deepEqual(error.data.data, { account: 0, amount, balance: 100 });
  // A BigInt that a number would do for is taken too, and comes back as a number.
  const { to } = await client.mutation(api.accounts.transfer, { from: 0, to: 1, amount: 1n });
  assert.equal(to, 101);
}

export async function pages({ url }) {
  const client = httpClient(url);
  const channel = newChannel();
  for (const body of ["1", "2", "3", "4", "5"]) await client.mutation(api.messages.send, message(channel, body));
  const found = [];
  let page = { continueCursor: null, isDone: false };
  while (!page.isDone) {
    const paginationOpts = { numItems: 2, cursor: page.continueCursor };
    page = await client.query(api.messages.page, { channel, paginationOpts });
    assert.ok(page.page.length <= 2);
    found.push(...bodies(page.page));
  }
  assert.deepEqual(found, ["5", "4", "3", "2", "1"]);
}
