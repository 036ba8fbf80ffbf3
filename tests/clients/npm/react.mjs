// ConvexReactClient in a headless Chromium: `page.jsx`, served as the project's site.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { chromium } from "playwright-core";

import { MISSING, launchOptions } from "../../browser/chromium.mjs";
import { api, httpClient, message, newChannel } from "./support.mjs";

const WAIT_MS = 20_000;
const HTML = `<!doctype html><meta charset="utf-8"><title>React</title><div id="root"></div><script src="react.js"></script>`;
/** Enough for a page to be cut in two. */
const MANY = 30;

export async function queriesAndMutations(context) {
  return inAPage(context, async (page) => {
    await page.waitForFunction(() => window.rendered.list.length > 0);
    for (const body of ["one", "two", "three"]) {
      const author = "react";
      await page.evaluate(
        async ([author, body]) => {
          await window.actions.send({ channel: location.hash.slice(1), author, body });
        },
        [author, body],
      );
      // A kept promise is a result that is shown.
      const shown = await page.locator("#list li").allTextContents();
      assert.equal(shown.at(-1), body);
    }
    const rendered = await page.evaluate(() => window.rendered.list);
    for (const [position, body] of ["one", "two", "three"].entries()) {
      const having = rendered.filter((messages) => messages.some((message) => message.body === body));
      assert.ok(having[0].at(-1).id.startsWith("guess "), `${body} is guessed first`);
      assert.ok(!having.at(-1)[position].id.startsWith("guess "), `${body} is the server's at last`);
      // From its first showing on it is there in each rendering, once: no flicker.
      const from = rendered.indexOf(having[0]);
      for (const messages of rendered.slice(from)) {
        assert.equal(messages.filter((message) => message.body === body).length, 1, `${body} is there once, always`);
      }
    }
  });
}

/** A guess that turns out wrong is taken back. */
export async function refusedGuess(context) {
  return inAPage(context, async (page) => {
    await page.waitForFunction(() => window.rendered.list.length > 0);
    const error = await page.evaluate(async () => {
      try {
        await window.actions.send({ channel: location.hash.slice(1), author: "", body: "refused" });
        return null;
      } catch (error) {
        return { name: error.name, data: error.data };
      }
    });
    assert.deepEqual(error, {
      name: "ConvexError",
      data: { code: "EMPTY_AUTHOR", message: "a message needs an author" },
    });
    await page.waitForFunction(() => document.querySelectorAll("#list li").length === 0);
    const rendered = await page.evaluate(() => window.rendered.list.map((messages) => messages.length));
    assert.deepEqual(rendered, [0, 1, 0]);
  });
}

export async function pagination(context) {
  const http = httpClient(context.url);
  const channel = newChannel();
  const expected = [];
  const send = async (body) => {
    const id = await http.mutation(api.messages.send, message(channel, body));
    expected.unshift(body);
    return id;
  };
  const ids = [];
  for (let number = 0; number < 12; number += 1) ids.push(await send(`message ${number}`));
  return inAPage(
    context,
    async (page) => {
      const shows = (bodies, status) =>
        page.waitForFunction(
          ([bodies, status]) => {
            const found = [...document.querySelectorAll("#pages li")].map((item) => item.textContent);
            const statusIs = document.getElementById("status").textContent;
            return JSON.stringify(found) === JSON.stringify(bodies) && (!status || statusIs === status);
          },
          [bodies, status],
        );
      await shows(expected.slice(0, 5), "CanLoadMore");
      await page.evaluate(() => window.actions.loadMore());
      await shows(expected.slice(0, 10), "CanLoadMore");
      // What is new belongs to the first page, which grows; the second begins where it did.
      await send("inserted");
      await shows(expected.slice(0, 11));
      await http.mutation(api.messages.remove, { id: ids[8] });
      expected.splice(expected.indexOf("message 8"), 1);
      await shows(expected.slice(0, 10));
      // The pages keep their bounds over a restart of the server.
      await context.server.kill();
      await context.server.start();
      await send("after a restart");
      await shows(expected.slice(0, 11));
      for (let number = 0; number < MANY; number += 1) await send(`more ${number}`);
      await shows(expected.slice(0, 11 + MANY));
      await page.evaluate(() => window.actions.loadMore());
      await shows(expected, "Exhausted");
      const rendered = await page.evaluate(() => window.rendered.pages);
      for (const { bodies } of rendered) {
        assert.equal(new Set(bodies).size, bodies.length, "nothing is there twice in any rendering");
      }
    },
    channel,
  );
}

async function inAPage({ url, server }, test, channel = newChannel()) {
  const options = launchOptions();
  if (!options) return `skipped: ${MISSING}`;
  await bundle(join(server.project, "public"));
  const browser = await chromium.launch(options);
  try {
    const page = await browser.newPage();
    page.setDefaultTimeout(WAIT_MS);
    const problems = [];
    page.on("pageerror", (error) => problems.push(error.message));
    await page.goto(`${url}/react.html#${channel}`);
    await test(page);
    assert.deepEqual(problems, [], "no errors on the page");
  } finally {
    await browser.close();
  }
}

async function bundle(site) {
  await build({
    entryPoints: [fileURLToPath(new URL("page.jsx", import.meta.url))],
    outfile: join(site, "react.js"),
    bundle: true,
    jsx: "automatic",
    define: { "process.env.NODE_ENV": '"production"' },
    logLevel: "warning",
  });
  writeFileSync(join(site, "react.html"), HTML);
}
