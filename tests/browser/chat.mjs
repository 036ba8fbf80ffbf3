// The demo's page in a real Chromium: what one window sends, the other shows.
//
//   node chat.mjs http://127.0.0.1:3210 [--shots DIR]
//
// Exit code 0: passed, or skipped because this machine has no Chromium (it says so); 1: failed; 2: bad usage.

import assert from "node:assert/strict";
import { accessSync, constants, mkdirSync } from "node:fs";
import { delimiter, join } from "node:path";
import { parseArgs } from "node:util";

const WAIT_MS = 10_000;
const BROWSERS = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const { base, shots } = readArguments();
const { chromium, executablePath } = await findBrowser();
mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
const problems = [];
try {
  const channel = `test-${Date.now().toString(36)}`;
  const ada = await openWindow("Ada", "light", channel);
  const bob = await openWindow("Bob", "dark", channel);
  const steps = { emptyState, sending, editing, accounts, pictures, removing, outage };
  for (const [name, step] of Object.entries(steps)) {
    await step(ada, bob, channel);
    console.log(`ok: ${name}`);
  }
  assert.deepEqual(problems, [], "no errors on the page's console");
  console.log(`passed; screenshots are in ${shots}`);
} finally {
  await browser.close();
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({ allowPositionals: true, options: { shots: { type: "string" } } });
    const address = positionals[0] ?? process.env.CONVOKE_URL;
    if (!address) throw new Error("the base URL is missing");
    return { base: new URL(address).href, shots: values.shots ?? "screenshots" };
  } catch (error) {
    console.error(`error: ${error.message}\nusage: node chat.mjs URL [--shots DIR]`);
    process.exit(2);
  }
}

async function findBrowser() {
  const executablePath = process.env.CHROMIUM ?? BROWSERS.map(inPath).find(Boolean);
  if (!executablePath) skip(`no Chromium: none of ${BROWSERS.join(", ")} is in PATH, and CHROMIUM is not set`);
  try {
    const { chromium } = await import("playwright-core");
    return { chromium, executablePath };
  } catch (error) {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
    return skip("playwright-core is not installed: run `npm ci` in tests/browser");
  }
}

function inPath(name) {
  return (process.env.PATH ?? "")
    .split(delimiter)
    .map((folder) => join(folder, name))
    .find((file) => {
      try {
        accessSync(file, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function skip(reason) {
  console.log(`skipped: ${reason}`);
  process.exit(0);
}

/** A window with a storage of its own, as a person of that name. */
async function openWindow(name, colorScheme, channel) {
  const context = await browser.newContext({ colorScheme, viewport: { width: 1200, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(WAIT_MS);
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

async function outage(ada, bob) {
  await bob.context().setOffline(true);
  await bob.getByText("Connection lost").waitFor();
  await messageOf(bob, "Hello back").waitFor();
  await bob.screenshot({ path: join(shots, "offline.png") });
  await send(ada, "Sent while the other was away");
  await bob.context().setOffline(false);
  await messageOf(bob, "while the other was away").waitFor();
  await bob.locator('#status[data-state="live"]').waitFor();
}
