// What the tests of the JavaScript clients share.

import { ConvexClient, ConvexHttpClient } from "convex/browser";
import { anyApi as api } from "convex/server";
import { setTimeout as sleep } from "node:timers/promises";
import ws from "ws";

export { api };

const WAIT_MS = 20_000;
let channels = 0;

export function newChannel() {
  channels += 1;
  return `npm-${Date.now().toString(36)}-${channels}`;
}

export function httpClient(url) {
  return new ConvexHttpClient(url, { logger: false });
}

/** A client on a WebSocket. Node 20 has none of its own. */
export function liveClient(url) {
  return new ConvexClient(url, { webSocketConstructor: globalThis.WebSocket ?? ws, logger: false });
}

export function message(channel, body, author = "npm") {
  return { channel, author, body };
}

export function bodies(messages) {
  return messages.map(({ body }) => body);
}

/** Every result of a subscription, in its order. */
export function follow(client, query, args) {
  const seen = { values: [], errors: [] };
  seen.stop = client.onUpdate(
    query,
    args,
    (value) => seen.values.push(value),
    (error) => seen.errors.push(error),
  );
  return seen;
}

export async function until(condition, what, ms = WAIT_MS) {
  const end = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`waited ${ms} ms for: ${what}`);
    await sleep(10);
  }
}

export async function within(promise, what, ms = WAIT_MS) {
  const late = sleep(ms, undefined, { ref: false }).then(() => {
    throw new Error(`waited ${ms} ms for: ${what}`);
  });
  return Promise.race([promise, late]);
}

/** The error that a call ends with. */
export async function failure(promise) {
  try {
    await within(promise, "an error");
  } catch (error) {
    return error;
  }
  throw new Error("the call succeeded");
}
