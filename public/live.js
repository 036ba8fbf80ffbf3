// Live results. Everything the page knows about "live" is behind `subscribe`: today it asks each second, and only while
// somebody looks; the server's event stream will take its place without a change to the callers.

import { CallError, query } from "./api.js";

const INTERVAL_MS = 1_000;
const OUTAGE_INTERVAL_MS_MAX = 5_000;

const running = new Set();

/**
 * Calls `onResult(data)` with the query's result now and whenever it changes, and `onError(error)` when it fails.
 * After an error the next good result is always reported. Returns a function that ends the subscription.
 */
export function subscribe(path, args, onResult, onError) {
  let last;
  let timer;
  let failures = 0;
  let asking = false;
  let askAgain = false;
  let ended = false;

  async function ask() {
    if (asking) {
      askAgain = true;
      return;
    }
    asking = true;
    clearTimeout(timer);
    await answer();
    asking = false;
    if (ended) return;
    if (askAgain) {
      askAgain = false;
      ask();
    } else if (!document.hidden) {
      timer = setTimeout(ask, Math.min(INTERVAL_MS * 2 ** failures, OUTAGE_INTERVAL_MS_MAX));
    }
  }

  async function answer() {
    try {
      const data = await query(path, args);
      if (ended) return;
      failures = 0;
      const text = JSON.stringify(data);
      if (text === last) return;
      last = text;
      onResult(data);
    } catch (error) {
      if (ended) return;
      failures += 1;
      last = undefined;
      onError(error instanceof CallError ? error : new CallError("INTERNAL", error.message));
    }
  }

  running.add(ask);
  ask();
  return () => {
    ended = true;
    clearTimeout(timer);
    running.delete(ask);
  };
}

/** Asks at once, for instance after a write of this page. */
export function refresh() {
  for (const ask of running) ask();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh();
});
addEventListener("online", refresh);
