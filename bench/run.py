#!/usr/bin/env python3
"""Convoke beside its peers: the same requests, the same SQL, the same Postgres, in interleaved rounds.

    python3 bench/run.py --database-url postgres://postgres@127.0.0.1:5432/bench

What it says is server CPU per request, and throughput, each as a ratio to axum with tokio-postgres by hand. README.md
beside this file tells how to read the table. Python's standard library only; everything runs on the loopback, is
bounded in time, and only processes that it started are ended.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

BENCH = pathlib.Path(__file__).resolve().parent
ROOT = BENCH.parent
SCHEMA = "bench"
CHANNELS = 100
MESSAGES_PER_CHANNEL = 100
BALANCE = 1_000_000
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
BASELINE = "axum"
WARM_UP_SECONDS = 1
KEEP_SECONDS_MAX = 30
"""The change feed has the tables' filling to read first."""
START_SECONDS_MAX = {"convoke": 1200}
"""`convoke dev` builds the components first."""

WORKLOADS = ("empty", "get", "list", "transfer", "kept")
ONLY = {"kept": ("axum", "convoke")}
"""Workloads that some servers alone have."""
KEPT = {"channel": "channel-7", "limit": 50}
BODIES = {
    "empty": "{}",
    "get": '{"id":"$id"}',
    "list": '{"channel":"channel-$a","limit":50}',
    "transfer": '{"from":$a,"to":$b,"amount":1}',
    "kept": json.dumps(KEPT),
}
CONVOKE_PATHS = {
    "empty": "/api/query/bench:empty",
    "get": "/api/query/bench:get",
    "list": "/api/query/messages:list",
    "transfer": "/api/mutation/accounts:transfer",
    "kept": "/api/query/messages:list",
}


class Failure(Exception):
    """Something that the person who runs this can act on."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default=os.environ.get("BENCH_DATABASE_URL"),
                        help="a Postgres of this machine; its schema `bench` is emptied and filled (or BENCH_DATABASE_URL)")
    parser.add_argument("--servers", default="axum,convoke,fastify,bun", help="which ones (default: %(default)s)")
    parser.add_argument("--workloads", default=",".join(WORKLOADS), help="which ones (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="each round measures every server once (default: 5)")
    parser.add_argument("--seconds", type=float, default=4, help="of one measurement (default: 4)")
    parser.add_argument("--connections", type=int, default=64, help="clients (default: 64)")
    parser.add_argument("--pool", type=int, default=20,
                        help="connections to Postgres of each peer; Convoke's own number is 20 (default: 20)")
    parser.add_argument("--accounts", type=int, default=100_000, help="transfers are uniform over them")
    parser.add_argument("--json", type=pathlib.Path, help="also write every measurement to this file")
    parser.add_argument("--convoke", type=pathlib.Path, help="the program to measure (default: target/release/convoke)")
    parser.add_argument("--no-build", action="store_true", help="take target/release as it is")
    options = parser.parse_args()
    options.servers = options.servers.split(",")
    options.workloads = options.workloads.split(",")
    unknown = [name for name in options.servers if name not in SERVERS]
    unknown += [name for name in options.workloads if name not in WORKLOADS]
    if unknown:
        parser.error(f"there is no {', '.join(unknown)}")
    if not options.database_url:
        parser.error("`--database-url` is missing")
    bounds = [("rounds", 1, 50), ("seconds", 0.2, 60), ("connections", 1, 512), ("pool", 1, 200), ("accounts", 2, 10**6)]
    for name, low, high in bounds:
        if not low <= getattr(options, name) <= high:
            parser.error(f"`--{name}` is {low} to {high}")
    return options


def say(text):
    print(text, file=sys.stderr, flush=True)


# The servers: how each is started, or why it cannot be.


def program(name):
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    return ROOT / target / "release" / name


def start_axum(options):
    return [program("peer_axum")], {}


def start_convoke(options):
    convoke = options.convoke or program("convoke")
    if not convoke.exists():
        raise Failure(f"{convoke} is missing: `cargo build --release -p convoke-cli`")
    if options.pool != 20:
        say("note: convoke keeps 20 connections to Postgres, whatever `--pool` says")
    environment = {"DATABASE_URL": options.database_url, "RUST_LOG": os.environ.get("RUST_LOG", "warn")}
    return [convoke, "dev", BENCH, "--once", "--port", options.port], environment


def start_fastify(options):
    node = shutil.which("node") or missing("node is not installed")
    npm_install("fastify")
    return [node, BENCH / "peers/fastify/server.mjs"], {"NODE_ENV": "production"}


def start_bun(options):
    npm_install("bun")
    package = BENCH / "peers/bun/node_modules"
    places = [package / "bun/bin/bun.exe", *package.glob("@oven/*/bin/bun")]
    bun = next((place for place in places if place.exists()), None) or missing("npm's package brought no binary")
    return [bun, BENCH / "peers/bun/server.mjs"], {"NODE_ENV": "production"}


def npm_install(peer):
    folder = BENCH / "peers" / peer
    if (folder / "node_modules").exists():
        return
    npm = shutil.which("npm") or missing("npm is not installed")
    say(f"npm ci in {folder.relative_to(ROOT)}")
    run = subprocess.run([npm, "ci"], cwd=folder, capture_output=True, text=True, timeout=600)
    if run.returncode != 0:
        missing(f"`npm ci` failed: {run.stderr.strip()[-300:]}")


def missing(why):
    raise Failure(why)


SERVERS = {"axum": start_axum, "convoke": start_convoke, "fastify": start_fastify, "bun": start_bun}


class Server:
    """A process that serves, until `stop`."""

    def __init__(self, name, options):
        self.name = name
        options.port = free_port()
        command, environment = SERVERS[name](options)
        environment |= {
            "BENCH_DATABASE_URL": options.database_url, "BENCH_SCHEMA": SCHEMA,
            "BENCH_PORT": str(options.port), "BENCH_POOL": str(options.pool),
        }
        self.url = f"http://127.0.0.1:{options.port}"
        self.log = tempfile.TemporaryFile(mode="w+")
        self.process = subprocess.Popen([str(word) for word in command], env=os.environ | environment,
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            self.wait_until_it_serves()
        except BaseException:
            self.stop()
            raise

    def wait_until_it_serves(self):
        until = time.monotonic() + START_SECONDS_MAX.get(self.name, 30)
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise Failure(f"it ended with {self.process.returncode}: {self.last_words()}")
            with contextlib.suppress(OSError, Failure):
                self.call("empty", {})
                return
            time.sleep(0.1)
        raise Failure(f"it does not serve: {self.last_words()}")

    def last_words(self):
        self.log.seek(0)
        return self.log.read().strip()[-800:]

    def path(self, workload):
        return CONVOKE_PATHS[workload] if self.name == "convoke" else f"/{workload}"

    def call(self, workload, body):
        return json.loads(self.request("POST", self.path(workload), json.dumps(body).encode()))["data"]

    def request(self, method, path, body=None):
        request = urllib.request.Request(self.url + path, body, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise Failure(f"{self.name} {path}: {error.code} {error.read()[:300]}") from error

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.log.close()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# CPU time, from /proc.


def stat(pid):
    """The fields after the process's name, which may hold anything."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def cpu_seconds(pid):
    fields = stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND if fields else 0.0


class Postgres:
    """The processes of the server that `checkpointer` belongs to, where it is one of this machine."""

    def __init__(self, checkpointer):
        fields = stat(checkpointer)
        self.postmaster = int(fields[1]) if fields else None

    def cpu_by_process(self):
        if self.postmaster is None:
            return None
        children = (int(entry.name) for entry in pathlib.Path("/proc").iterdir() if entry.name.isdigit())
        children = [pid for pid in children if (fields := stat(pid)) and int(fields[1]) == self.postmaster]
        return {pid: cpu_seconds(pid) for pid in children}


def spent(before, after):
    if before is None:
        return None
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


def stolen():
    """Clock ticks that another guest of the same machine took, and all of them."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return fields[7], sum(fields)


# One measurement.


def load(options, server, workload, ids, seconds, seed):
    numbers = CHANNELS if workload == "list" else options.accounts
    command = [program("load"), "--url", server.url + server.path(workload), "--body", BODIES[workload],
               "--numbers", numbers, "--connections", options.connections, "--seconds", seconds, "--seed", seed]
    if ids:
        command += ["--ids", ids]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=seconds + 60)
    if run.returncode != 0:
        raise Failure(f"load: {run.stderr.strip()}")
    return json.loads(run.stdout)


def measure(options, server, workload, ids, postgres, seed):
    load(options, server, workload, ids, WARM_UP_SECONDS, seed + 1_000)
    server_before, database_before = cpu_seconds(server.process.pid), postgres.cpu_by_process()
    result = load(options, server, workload, ids, options.seconds, seed)
    server_cpu = cpu_seconds(server.process.pid) - server_before
    database_cpu = spent(database_before, postgres.cpu_by_process())
    answers = result["requests"] + sum(result["errors"].values())
    if result["requests"] == 0:
        raise Failure(f"{server.name} {workload}: no request succeeded: {result['errors']}")
    result["server_us"] = server_cpu * 1e6 / answers
    result["database_us"] = None if database_cpu is None else database_cpu * 1e6 / answers
    return result


def ids_of(server, folder):
    """Ids as this server writes them: Convoke's are those of its contract, the peers' are uuids."""
    file = pathlib.Path(folder) / f"{server.name}.ids"
    ids = [document["_id"] for channel in range(CHANNELS)
           for document in server.call("list", {"channel": f"channel-{channel}", "limit": 50})]
    file.write_text("\n".join(ids))
    return file


def check_answers(servers):
    """Before anything is measured: the servers must agree on what they serve."""
    answers = {}
    for server in servers:
        documents = server.call("list", {"channel": "channel-7", "limit": 50})
        one = server.call("get", {"id": documents[0]["_id"]})
        if len(documents) != 50 or one != documents[0]:
            raise Failure(f"{server.name} answers something else than the documents of a channel")
        answers[server.name] = [{key: value for key, value in document.items() if key != "_id"} for document in documents]
    first = next(iter(answers))
    for name, documents in answers.items():
        if documents != answers[first]:
            raise Failure(f"{name} and {first} answer differently")


def keep(servers):
    """Gives axum the very bytes that convoke answers a query with whose result it keeps."""
    by_name = {server.name: server for server in servers}
    convoke, axum = (by_name.get(name) for name in ("convoke", "axum"))
    if convoke is None:
        return
    until = time.monotonic() + KEEP_SECONDS_MAX
    while True:
        body = [convoke.request("POST", convoke.path("kept"), json.dumps(KEPT).encode()) for _ in range(8)][-1]
        if b"\nconvoke_query_cache_hits_total 0\n" not in convoke.request("GET", "/metrics"):
            break
        if time.monotonic() > until:
            raise Failure("convoke keeps no results: has it live queries?")
        time.sleep(0.2)
    if axum is not None:
        axum.request("PUT", axum.path("kept"), body)
        if axum.request("POST", axum.path("kept"), json.dumps(KEPT).encode()) != body:
            raise Failure("axum answers something else than it was given")


def database(options, *words):
    command = [program("database"), "--database-url", options.database_url, "--schema", SCHEMA, *words]
    run = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300)
    if run.returncode != 0:
        raise Failure(run.stderr.strip())
    return json.loads(run.stdout)


def fill(options):
    return database(options, "fill", "--channels", CHANNELS, "--messages-per-channel", MESSAGES_PER_CHANNEL,
                    "--accounts", options.accounts, "--balance", BALANCE)


def measure_all(options, servers, folder, postgres):
    ids = {server.name: ids_of(server, folder) for server in servers}
    measurements = []
    for round_number in range(options.rounds):
        for workload in options.workloads:
            # There and back again, so that nobody always follows the same neighbour.
            for server in servers if round_number % 2 == 0 else reversed(servers):
                if server.name not in ONLY.get(workload, SERVERS):
                    continue
                needs_ids = ids[server.name] if workload == "get" else None
                result = measure(options, server, workload, needs_ids, postgres, round_number)
                measurements.append({"round": round_number, "workload": workload, "server": server.name, **result})
                errors = f", errors {result['errors']}" if result["errors"] else ""
                say(f"round {round_number + 1} {workload:8} {server.name:8} {result['requests_per_second']:8.0f}/s "
                    f"{result['server_us']:7.1f} us{errors}")
    return measurements


# The report.


def median_of(rows, field):
    values = [row[field] for row in rows if row[field] is not None]
    return statistics.median(values) if values else None


def ratios(rows, baseline, field, invert):
    """Round by round, so that what disturbs the machine disturbs both sides."""
    pairs = [(row[field], other[field]) for row in rows for other in baseline if row["round"] == other["round"]]
    values = [(theirs / own if invert else own / theirs) for own, theirs in pairs if own and theirs]
    if not values:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def number(value, digits=1):
    return "-" if value is None else f"{value:,.{digits}f}"


def table(measurements):
    lines = ["| workload | server | CPU us/request | CPU ratio | requests/s | throughput ratio | p50 ms | p99 ms | Postgres us/request | errors |",
             "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|"]
    for workload in WORKLOADS:
        of_workload = [row for row in measurements if row["workload"] == workload]
        baseline = [row for row in of_workload if row["server"] == BASELINE]
        for name in dict.fromkeys(row["server"] for row in of_workload):
            rows = [row for row in of_workload if row["server"] == name]
            errors = sum(sum(row["errors"].values()) for row in rows)
            cells = [workload, name, number(median_of(rows, "server_us")), ratios(rows, baseline, "server_us", True),
                     number(median_of(rows, "requests_per_second"), 0),
                     ratios(rows, baseline, "requests_per_second", False),
                     number(median_of(rows, "p50_ms"), 2), number(median_of(rows, "p99_ms"), 2),
                     number(median_of(rows, "database_us")), str(errors)]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def machine():
    model = "unknown"
    with contextlib.suppress(OSError):
        lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n")
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), model)
    return f"{os.cpu_count()} x {model}, {platform.system()} {platform.release()}"


def build():
    command = ["cargo", "build", "--release", "-p", "convoke-bench"]
    say(" ".join(command))
    subprocess.run(command, cwd=ROOT, check=True)


def start(names, options, running):
    for name in names:
        try:
            running.append(Server(name, options))
        except Failure as failure:
            say(f"skipped: {name}: {failure}")


def main():
    options = arguments()
    if not options.no_build:
        build()
    running = []
    try:
        # Convoke first: it makes the tables as it wants them, and everybody else uses the same.
        start([name for name in options.servers if name == "convoke"], options, running)
        filled = fill(options)
        start([name for name in options.servers if name != "convoke"], options, running)
        running.sort(key=lambda server: options.servers.index(server.name))
        if not running:
            raise Failure("no server could be started")
        postgres = Postgres(filled["checkpointer"])
        if postgres.postmaster is None:
            say("note: Postgres is not on this machine: its CPU time is not measured")
        check_answers(running)
        if "kept" in options.workloads:
            keep(running)
        stolen_before = stolen()
        with tempfile.TemporaryDirectory() as folder:
            measurements = measure_all(options, running, folder, postgres)
        stolen_after = stolen()
    finally:
        for server in running:
            server.stop()
    steal = (stolen_after[0] - stolen_before[0]) / max(1, stolen_after[1] - stolen_before[1])
    total = database(options, "total")
    if total != {"accounts": options.accounts, "total": options.accounts * BALANCE}:
        raise Failure(f"transfers made or lost money: {total}")
    print(f"{machine()}; {steal:.1%} of the time was another guest's\n{filled['version']}; {filled['settings']}\n"
          f"{options.rounds} rounds of {options.seconds} s, {options.connections} connections, pool {options.pool}, "
          f"{options.accounts:,} accounts; medians, ratios with their range\n\n{table(measurements)}")
    if options.json:
        report = {"machine": machine(), "postgres": filled, "steal": steal, "measurements": measurements}
        report["options"] = {key: getattr(options, key) for key in ("rounds", "seconds", "connections", "pool", "accounts")}
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    try:
        main()
    except (Failure, subprocess.SubprocessError) as failure:
        sys.exit(f"error: {failure}")
