// The Chromium of this machine, for whoever brings playwright-core.

import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
/** It talks to nobody but the page under test. */
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

export const MISSING = `no Chromium: none of ${NAMES.join(", ")} is in PATH, and CHROMIUM is not set`;

/** What playwright's `chromium.launch` takes; none where this machine has no Chromium. */
export function launchOptions() {
  const executablePath = process.env.CHROMIUM ?? NAMES.map(inPath).find(Boolean);
  return executablePath && { executablePath, headless: true, args: FLAGS };
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
