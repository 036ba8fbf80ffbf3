// Convex' JavaScript clients, unmodified, against a Convoke server that serves the demo.
//
//   node main.mjs --convoke BINARY --project DIRECTORY [--kills COUNT] [--only NAME]
//
// The directory is a project that this may write to. Exit code 0: passed; 1: failed; 2: bad usage.

import { mkdirSync } from "node:fs";
import { resolve } from "node:path";
import { parseArgs } from "node:util";

import * as http from "./http.mjs";
import * as live from "./live.mjs";
import * as outage from "./outage.mjs";
import * as react from "./react.mjs";
import { Server } from "./server.mjs";

const KILLS = 10;
const OPTIONS = {
  convoke: { type: "string" },
  project: { type: "string" },
  kills: { type: "string" },
  only: { type: "string" },
};

const { binary, project, kills, only } = readArguments();
mkdirSync(resolve(project, "public"), { recursive: true });
const server = await Server.on(binary, project);
let failed = false;
try {
  await server.start();
  const context = { server, url: server.url, kills };
  for (const [group, tests] of Object.entries({ http, live, react, outage })) {
    for (const [name, test] of Object.entries(tests)) {
      const full = `${group}: ${name}`;
      if (only && !full.includes(only)) continue;
      const words = await test(context);
      console.log(words ? `ok: ${full} (${words})` : `ok: ${full}`);
    }
  }
} catch (error) {
  failed = true;
  console.error(error);
} finally {
  await server.stop();
}
// Clients of a test that failed are still open.
process.exit(failed ? 1 : 0);

function readArguments() {
  try {
    const { values } = parseArgs({ options: OPTIONS });
    if (!values.convoke || !values.project) throw new Error("`--convoke` and `--project` are needed");
    const kills = Number(values.kills ?? process.env.CONVOKE_KILLS ?? KILLS);
    if (!Number.isInteger(kills) || kills < 0) throw new Error("`--kills` is a count");
    return { binary: resolve(values.convoke), project: resolve(values.project), kills, only: values.only };
  } catch (error) {
    console.error(`error: ${error.message}\nusage: node main.mjs --convoke BINARY --project DIRECTORY [--kills COUNT]`);
    process.exit(2);
  }
}
