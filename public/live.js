// Live results: a stream of server-sent events for each subscription, held open and opened again when it breaks.
//
// By fetch and not by EventSource: arguments travel in a body, and not in an address, which logs would keep. A browser
// holds six connections to an origin over HTTP/1.1, all its windows together: a page has few subscriptions, gives their
// streams up while nobody looks at it, and the windows that were used last have precedence.

import { CallError, OFFLINE, errorOf } from "./api.js";

const RETRY_MS = 1_000;
const RETRY_MS_MAX = 10_000;
/** The server says something every 15 s; after two of these and a little the stream is taken for lost. */
const SILENCE_MS_MAX = 35_000;
/** How long a hidden page keeps its streams: looking elsewhere for a moment costs nothing. */
const HIDDEN_MS_MAX = 30_000;
/** Windows that are live at a time: two streams each leave two connections for calls. */
const WINDOWS_MAX = 2;

const subscriptions = new Set();
let tellConnection = () => {};
let asleep = false;
let sleepTimer;

/**
 * Calls `onResult(data)` with the query's result now and whenever it changes, and `onError(error)` where the query
 * fails. An outage is no error: the stream is opened again, and goes on behind the last result that came.
 * Returns a function that ends the subscription.
 */
export function subscribe(path, args, onResult, onError) {
  const subscription = new Subscription(path, args, onResult, onError);
  subscriptions.add(subscription);
  if (!asleep) subscription.open();
  tell();
  return () => {
    subscription.close();
    subscriptions.delete(subscription);
    tell();
  };
}

/** Calls `listener` with `connecting`, `live`, `reconnecting` or `paused`: the state of all subscriptions together. */
export function onConnection(listener) {
  tellConnection = listener;
  tell();
}

function tell() {
  const states = [...subscriptions].map((subscription) => subscription.state);
  const first = ["reconnecting", "connecting"].find((state) => states.includes(state));
  if (states.length > 0) tellConnection(asleep ? "paused" : (first ?? "live"));
}

class Subscription {
  state = "connecting";
  #path;
  #body;
  #onResult;
  #onError;
  #connection;
  #timer;
  #failures = 0;
  #retryMs = RETRY_MS;
  #lastId;

  constructor(path, args, onResult, onError) {
    this.#path = path;
    this.#body = JSON.stringify(args);
    this.#onResult = onResult;
    this.#onError = onError;
  }

  /** Opens the stream, at once; one that is open gives way. */
  open() {
    this.close();
    const connection = new AbortController();
    this.#connection = connection;
    this.#expect();
    this.#follow(connection.signal).catch((error) => {
      if (!connection.signal.aborted) this.#lost(error);
    });
  }

  /** Closes it, and says nothing of it. */
  close() {
    clearTimeout(this.#timer);
    this.#connection?.abort();
  }

  async #follow(signal) {
    const headers = { "content-type": "application/json", accept: "text/event-stream" };
    if (this.#lastId !== undefined) headers["last-event-id"] = this.#lastId;
    const request = { method: "POST", headers, body: this.#body, signal, cache: "no-store" };
    const response = await fetch(`/api/subscribe/${this.#path}`, request).catch(() => {
      throw new CallError(OFFLINE, "the server does not answer");
    });
    if (!response.ok) throw await errorOf(response);
    this.#setState("live");
    const heard = () => {
      if (signal.aborted) return;
      this.#failures = 0;
      this.#expect();
    };
    for await (const event of eventsOf(response.body, heard)) {
      if (signal.aborted) return;
      this.#take(event);
    }
    throw new CallError(OFFLINE, "the server ended the stream");
  }

  #take({ type, id, retry, data }) {
    if (retry !== undefined) this.#retryMs = retry;
    if (type !== "result" && type !== "error") return;
    this.#lastId = id;
    const answer = JSON.parse(data).data;
    try {
      if (type === "result") this.#onResult(answer);
      else this.#onError(new CallError(answer.code, answer.message, answer.details));
    } catch (error) {
      // The listener's own fault, and no reason to leave the stream.
      reportError(error);
    }
  }

  /** Takes the stream for lost unless something comes in time. */
  #expect() {
    clearTimeout(this.#timer);
    const silent = () => this.#lost(new CallError(OFFLINE, "the server is silent"));
    this.#timer = setTimeout(silent, SILENCE_MS_MAX);
  }

  /** Tries again, later each time, and not together with everybody else who lost the same server. */
  #lost(error) {
    this.close();
    const answered = error instanceof CallError && error.code !== OFFLINE;
    this.#setState(answered && !error.isOutage ? "live" : "reconnecting");
    const longest = Math.min(this.#retryMs * 2 ** this.#failures, RETRY_MS_MAX);
    this.#failures += 1;
    this.#timer = setTimeout(() => this.open(), longest * (0.5 + Math.random() / 2));
    if (!answered) return;
    // What comes next takes the error's place, even where it is what was there before.
    this.#lastId = undefined;
    this.#onError(error);
  }

  #setState(state) {
    this.state = state;
    tell();
  }
}

/** The events of a stream, as the HTML standard has them. A comment is none, but `heard` is called. */
async function* eventsOf(body, heard) {
  let rest = "";
  let event = { type: "message", data: [] };
  for await (const text of readAll(body.pipeThrough(new TextDecoderStream()))) {
    heard();
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines.map((line) => line.replace(/\r$/, ""))) {
      const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
      if (line === "") {
        yield { ...event, data: event.data.join("\n") };
        event = { type: "message", data: [] };
      } else if (field === "data") event.data.push(value);
      else if (field === "event") event.type = value;
      else if (field === "id") event.id = value;
      else if (field === "retry" && /^\d+$/.test(value)) event.retry = Number(value);
    }
  }
}

/** Not every browser lets a stream be looped over by itself. */
async function* readAll(stream) {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

// Streams sleep while the page is hidden for long, and as soon as other windows of this browser want the connections.

const me = crypto.getRandomValues(new Uint32Array(2)).join("-");
const windows = new BroadcastChannel("convoke.live");
/** The windows that woke after this one and are awake. */
const newer = new Set();

function sleep() {
  clearTimeout(sleepTimer);
  asleep = true;
  for (const subscription of subscriptions) subscription.close();
  windows.postMessage({ id: me, awake: false });
  tell();
}

function wake() {
  clearTimeout(sleepTimer);
  newer.clear();
  windows.postMessage({ id: me, awake: true });
  if (!asleep) return;
  asleep = false;
  for (const subscription of subscriptions) subscription.open();
  tell();
}

windows.addEventListener("message", ({ data: { id, awake } }) => {
  if (awake) newer.add(id);
  else newer.delete(id);
  const wanted = !document.hidden && newer.size < WINDOWS_MAX;
  if (awake && !wanted && !asleep) sleep();
  if (!awake && wanted && asleep) wake();
});

const seen = () => {
  clearTimeout(sleepTimer);
  if (document.hidden) sleepTimer = setTimeout(sleep, HIDDEN_MS_MAX);
  else wake();
};
document.addEventListener("visibilitychange", seen);
addEventListener("focus", seen);
seen();
// A page in the browser's memory of visited pages: its connections are gone.
addEventListener("pagehide", sleep);
addEventListener("pageshow", (event) => {
  if (event.persisted) wake();
});
// The network is back: there is nothing to wait for.
addEventListener("online", () => {
  for (const subscription of subscriptions) {
    if (subscription.state === "reconnecting" && !asleep) subscription.open();
  }
});
