// A `convoke dev` that a test may kill and start again, on the same port and the same data.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const READY_MS_MAX = 60_000;

export class Server {
  #process;
  #log = "";

  constructor(binary, project, port) {
    this.binary = binary;
    this.project = project;
    this.port = port;
  }

  static async on(binary, project) {
    return new Server(binary, project, await freePort());
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** The database of the project's own Postgres, as psql takes it. */
  get database() {
    return `postgresql:///postgres?host=${join(this.project, ".convoke/postgres/run")}&user=postgres`;
  }

  async start() {
    const { DATABASE_URL: _, ...env } = process.env;
    const args = ["dev", this.project, "--port", String(this.port), "--once"];
    const started = spawn(this.binary, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = started;
    this.#log = "";
    for (const stream of [started.stdout, started.stderr]) stream.on("data", (text) => (this.#log += text));
    const until = Date.now() + READY_MS_MAX;
    while (!(await this.#isReady())) {
      if (started.exitCode !== null || started.signalCode) throw new Error(`the server ended:\n${this.#log}`);
      if (Date.now() > until) throw new Error(`the server is not ready:\n${this.#log}`);
      await sleep(50);
    }
  }

  async #isReady() {
    try {
      return (await fetch(`${this.url}/readyz`)).ok;
    } catch {
      return false;
    }
  }

  /** As a power cut would: nothing is finished. */
  async kill() {
    await this.#end("SIGKILL");
  }

  /** Returns how long it took, in milliseconds. */
  async stop() {
    const began = performance.now();
    await this.#end("SIGTERM");
    return performance.now() - began;
  }

  async #end(signal) {
    const running = this.#process;
    if (!running || running.exitCode !== null || running.signalCode) return;
    const ended = once(running, "exit");
    running.kill(signal);
    await ended;
  }
}

async function freePort() {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}
