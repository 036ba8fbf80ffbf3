// The demo's page in a real Chromium: what one window sends, or psql writes, the other shows, and nobody asks again.
//
//   node chat.mjs http://127.0.0.1:3210 [--shots DIR] [--database URL]
//
// With the URL of the host's database, as psql takes it, a row is written by psql too.
// Exit code 0: passed, or skipped because this machine has no Chromium (it says so); 1: failed; 2: bad usage.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { MISSING, launchOptions } from "./chromium.mjs";

const WAIT_MS = 10_000;
/** Longer than a page that polls would wait. */
const QUIET_MS = 3_000;
const OPTIONS = { shots: { type: "string" }, database: { type: "string" } };

const { base, shots, database } = readArguments();
const { chromium, options } = await findBrowser();
mkdirSync(shots, { recursive: true });

const browser = await chromium.launch(options);
const relay = await startRelay(new URL(base));
const problems = [];
/** The paths that each window has asked for under /api, in their order. */
const asked = { Ada: [], Bob: [] };
try {
  const channel = `test-${Date.now().toString(36)}`;
  const ada = await openWindow("Ada", "light", base, channel);
  const bob = await openWindow("Bob", "dark", relay.base, channel);
  const steps = { emptyState, sending, editing, byPsql, accounts, pictures, removing, quiet, manyWindows, outage };
  for (const [name, step] of Object.entries(steps)) {
    await step(ada, bob, channel);
    console.log(`ok: ${name}`);
  }
  assert.deepEqual(problems, [], "no errors on the page's console");
  console.log(`passed; screenshots are in ${shots}`);
} finally {
  await browser.close();
  relay.stop();
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({ allowPositionals: true, options: OPTIONS });
    const address = positionals[0] ?? process.env.CONVOKE_URL;
    if (!address) throw new Error("the base URL is missing");
    return { base: new URL(address).href, shots: values.shots ?? "screenshots", database: values.database };
  } catch (error) {
    console.error(`error: ${error.message}\nusage: node chat.mjs URL [--shots DIR] [--database URL]`);
    process.exit(2);
  }
}

async function findBrowser() {
  const options = launchOptions();
  if (!options) skip(MISSING);
  try {
    const { chromium } = await import("playwright-core");
    return { chromium, options };
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    return skip("playwright-core is not installed: run `npm ci` in tests/browser");
  }
}

function skip(reason) {
  console.log(`skipped: ${reason}`);
  process.exit(0);
}

/** The same server under another address, which can go away and come back. */
async function startRelay({ hostname, port }) {
  const sockets = new Set();
  const relay = createServer((client) => {
    const server = connect(port || 80, hostname);
    for (const [socket, other] of [[client, server], [server, client]]) {
      sockets.add(socket);
      socket.pipe(other);
      socket.on("error", () => {});
      socket.on("close", () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
  });
  const listen = (port) => new Promise((done) => relay.listen(port, "127.0.0.1", done));
  await listen(0);
  const own = relay.address().port;
  const stop = () => {
    relay.close();
    for (const socket of sockets) socket.destroy();
  };
  return { base: `http://127.0.0.1:${own}/`, stop, start: () => listen(own) };
}

/** A window with a storage of its own, as a person of that name. */
async function openWindow(name, colorScheme, base, channel) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1200, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
  page.on("request", (request) => {
    const { pathname } = new URL(request.url());
    if (pathname.startsWith("/api/")) asked[name].push(pathname.slice("/api/".length));
  });
  page.on("pageerror", (error) => problems.push(`${name}: ${error.message}`));
  page.on("console", (message) => {
    const expected = message.text().startsWith("Failed to load resource");
    if (message.type() === "error" && !expected) problems.push(`${name}: ${message.text()}`);
  });
  await page.goto(`${base}#${channel}`);
  await page.getByLabel("Your name").fill(name);
  await page.locator('#status[data-state="live"]').waitFor();
  return page;
}

function messageOf(page, text) {
  return page.locator(".message", { hasText: text });
}

async function send(page, text) {
  await page.locator("#body").fill(text);
  await page.keyboard.press("Enter");
}

async function emptyState(ada, bob, channel) {
  await ada.getByText(`Nothing in #${channel} yet`).waitFor();
  await bob.getByText(`Nothing in #${channel} yet`).waitFor();
}

async function sending(ada, bob) {
  await send(ada, "Hello from the light window");
  await messageOf(bob, "Hello from the light window").waitFor();
  assert.equal(await bob.locator("#empty").isVisible(), false, "the empty state is gone");
  await send(bob, "Hello back, from the dark one");
  await messageOf(ada, "Hello back").waitFor();
  await send(bob, "<b>markup</b> is only text");
  await messageOf(ada, "<b>markup</b> is only text").waitFor();
  const authors = await ada.locator(".by b").allTextContents();
  assert.deepEqual(authors, ["Ada", "Bob", "Bob"], "oldest first, with their authors");
  const buttons = await messageOf(ada, "Hello back").getByRole("button", { name: "Edit" }).count();
  assert.equal(buttons, 0, "somebody else's message cannot be edited");
}

async function editing(ada, bob) {
  const row = messageOf(ada, "Hello from the light window");
  await row.hover();
  await row.getByRole("button", { name: "Edit" }).click();
  await ada.locator(".editor textarea").fill("Hello from the light window, edited");
  await ada.getByRole("button", { name: "Save" }).click();
  await messageOf(bob, "edited").waitFor();
  await ada.locator(".editor").waitFor({ state: "detached" });
}

/** Only where nobody has accounts yet: a test must not move somebody's money. */
async function accounts(ada, bob) {
  if (!(await ada.locator("#seed").isVisible())) return;
  await ada.locator("#seed").click();
  await ada.getByRole("button", { name: "0 to 1" }).click();
  await bob.locator("#balance-0", { hasText: /^90$/ }).waitFor();
  await bob.locator("#balance-1", { hasText: /^110$/ }).waitFor();
  await bob.locator("#amount").fill("1000");
  await bob.getByRole("button", { name: "1 to 0" }).click();
  await bob.locator("#accounts-error", { hasText: "Nothing was transferred" }).waitFor();
  await bob.locator("#amount").fill("10");
  await bob.getByRole("button", { name: "1 to 0" }).click();
  await ada.locator("#balance-0", { hasText: /^100$/ }).waitFor();
  await bob.locator("#accounts-error").waitFor({ state: "hidden" });
}

async function pictures(ada, bob) {
  await ada.screenshot({ path: join(shots, "light.png") });
  await bob.screenshot({ path: join(shots, "dark.png") });
  await ada.setViewportSize({ width: 390, height: 780 });
  await ada.screenshot({ path: join(shots, "narrow.png"), fullPage: true });
  const overflow = await ada.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `nothing is wider than a telephone (${overflow} px too wide)`);
  await ada.setViewportSize({ width: 1200, height: 800 });
}

async function removing(ada, bob) {
  const row = messageOf(ada, "edited");
  await row.hover();
  await row.getByRole("button", { name: "Remove" }).click();
  await messageOf(bob, "edited").waitFor({ state: "detached" });
}

/** What is not written by a function is shown all the same. */
async function byPsql(ada, bob, channel) {
  if (!database) {
    console.log("skipped: no `--database`, so nothing is written by psql");
    return;
  }
  const text = "Written by psql";
  const document = JSON.stringify({ channel, author: "psql", body: text });
  const psql = (statement) => execFileSync("psql", [database, "-qc", statement]);
  psql(`insert into demo.messages (data) values ('${document}')`);
  await messageOf(ada, text).waitFor();
  await messageOf(bob, text).waitFor();
  psql(`delete from demo.messages where data->>'channel' = '${channel}' and data->>'author' = 'psql'`);
  await messageOf(ada, text).waitFor({ state: "detached" });
  await messageOf(bob, text).waitFor({ state: "detached" });
}

/** Results come by themselves: while nothing happens, nothing is asked for. */
async function quiet(ada) {
  const before = structuredClone(asked);
  await ada.waitForTimeout(QUIET_MS);
  assert.deepEqual(asked, before, "no request while nothing happens");
  for (const paths of Object.values(asked)) {
    assert.deepEqual(paths.filter((path) => path.startsWith("query")), [], "a live page asks no query");
    const streams = paths.filter((path) => path.startsWith("subscribe/")).sort();
    assert.deepEqual(streams, ["subscribe/accounts:overview", "subscribe/messages:list"], "each stream is opened once");
  }
}

/** A browser has six connections for all windows of an origin: those that stay open must leave room. */
async function manyWindows(ada, bob) {
  const second = await ada.context().newPage();
  second.setDefaultTimeout(WAIT_MS);
  await second.goto(ada.url());
  await second.locator('#status[data-state="live"]').waitFor();
  await messageOf(second, "Hello back").waitFor();
  for (const page of [ada, second]) {
    const text = `From a window beside another, ${page === ada ? 1 : 2}`;
    await send(page, text);
    await messageOf(ada, text).waitFor();
    await messageOf(second, text).waitFor();
    await messageOf(bob, text).waitFor();
  }
  // A third one takes the streams of the window that was used longest ago, until that is used again.
  const third = await ada.context().newPage();
  third.setDefaultTimeout(WAIT_MS);
  await third.goto(ada.url());
  await ada.locator('#status[data-state="paused"]').waitFor();
  await send(third, "From a third window");
  await messageOf(third, "From a third window").waitFor();
  await messageOf(second, "From a third window").waitFor();
  assert.equal(await messageOf(ada, "From a third window").count(), 0, "a window that is paused stands still");
  await ada.evaluate(() => dispatchEvent(new Event("focus")));
  await ada.locator('#status[data-state="live"]').waitFor();
  await messageOf(ada, "From a third window").waitFor();
  await second.locator('#status[data-state="paused"]').waitFor();
  await third.close();
  await second.locator('#status[data-state="live"]').waitFor();
  await second.reload();
  await second.reload();
  await second.locator('#status[data-state="live"]').waitFor();
  assert.equal(await ada.locator("#status").getAttribute("data-state"), "live", "a reload is no further window");
  await second.close();
}

/** The server is gone, and comes back. */
async function outage(ada, bob) {
  relay.stop();
  await bob.locator('#status[data-state="reconnecting"]').waitFor();
  await bob.getByText("Connection lost, reconnecting").waitFor();
  await messageOf(bob, "Hello back").waitFor();
  await bob.screenshot({ path: join(shots, "offline.png") });
  await send(ada, "Sent while the other was away");
  await messageOf(ada, "while the other was away").waitFor();
  await relay.start();
  await messageOf(bob, "while the other was away").waitFor();
  await bob.locator('#status[data-state="live"]').waitFor();
}
