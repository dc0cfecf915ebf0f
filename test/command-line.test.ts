/** The command line as a person meets it: help, faults told in words, exit codes, a clean end. */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { ask } from "./support/client.ts";
import { filesBelow, poolOwners, temporaryDirectory } from "./support/data-directory.ts";
import { isFull } from "./support/depth.ts";
import { commandPath, shippedModelPath } from "./support/repository.ts";
import { startServer } from "./support/server.ts";

interface Ended {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** Threads that spin would take the processor from one another. */
const env = { ...process.env, REPRISE_THREADS: "1" };

function reprise(...args: readonly string[]): Promise<Ended> {
  return repriseIn({}, ...args);
}

function repriseIn(variables: Readonly<Record<string, string>>, ...args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    const options = { timeout: 120_000, env: { ...env, ...variables } };
    execFile(process.execPath, [commandPath, ...args], options, (failure, out, error) => {
      resolve({ code: typeof failure?.code === "number" ? failure.code : failure === null ? 0 : -1, out, error });
    });
  });
}

test("--help and --version tell, on stdout, and exit 0", async () => {
  expect(await reprise("--help")).toMatchObject({ code: 0, out: expect.stringContaining("reprise COMMAND") as string });
  expect(await reprise("serve", "--help")).toMatchObject({
    code: 0,
    out: expect.stringContaining("--data-dir DIR") as string,
  });
  expect(await reprise("--version")).toMatchObject({
    code: 0,
    out: expect.stringMatching(/^reprise \d+\.\d+\.\d+\n$/) as string,
  });
});

test("used wrongly: every fault in one go, exit 2", async () => {
  const { code, error } = await reprise("serve", "--prot", "80", "--sequences", "none", "--memory");
  expect(code).toBe(2);
  expect(error).toMatch(/--prot: no such option; did you mean "--port"\?/);
  expect(error).toMatch(/--sequences: "none" is not a whole number/);
  expect(error).toMatch(/--memory needs a value/);
  expect(await reprise()).toMatchObject({ code: 2 });
  expect(await reprise("server")).toMatchObject({
    code: 2,
    error: expect.stringContaining('did you mean "serve"?') as string,
  });
});

test("an address that others can reach needs a key", async () => {
  const { code, error } = await reprise("serve", "--host", "0.0.0.0", "--data-dir", temporaryDirectory());
  expect(code).toBe(2);
  expect(error).toContain("--api-key");
});

test("drafts and deterministic mode exclude each other", async () => {
  const { code, error } = await reprise(
    "serve",
    "--draft",
    "lookup",
    "--deterministic",
    "--data-dir",
    temporaryDirectory(),
  );
  expect(code).toBe(2);
  expect(error).toContain("--draft lookup computes several tokens in one step");
});

test("a key that is empty, in the file or the environment, opens nothing", async () => {
  const directory = temporaryDirectory();
  const file = join(directory, "reprise.yaml");
  writeFileSync(file, "host: 0.0.0.0\napi-key:\n");
  const keys = join(directory, "keys");
  writeFileSync(keys, "long-enough\n", { mode: 0o644 });
  const flags = ["--data-dir", join(directory, "data"), "--port", "0"];
  for (const [ended, words] of [
    [await reprise("serve", ...flags, "--config", file), "api-key has no value"],
    [
      await repriseIn({ REPRISE_API_KEY: "" }, "serve", ...flags, "--host", "0.0.0.0"),
      "REPRISE_API_KEY: a key must have",
    ],
    [await reprise("serve", ...flags, "--api-key-file", keys), "others can read or change it (mode 0644)"],
  ] as const)
    expect(ended).toMatchObject({ code: 2, error: expect.stringContaining(words) as string });
}, 60_000);

test("variables of Kubernetes' Services stop nothing; others that are no settings are one line", async () => {
  const links = {
    REPRISE_PORT: "tcp://10.0.0.1:8080",
    REPRISE_SERVICE_HOST: "10.0.0.1",
    REPRISE_CACHE_PORT_80_TCP_ADDR: "::1",
  };
  const directory = temporaryDirectory();
  mkdirSync(join(directory, "disk"));
  expect(await repriseIn(links, "inspect", directory)).toMatchObject({ code: 0, error: "" });
  expect(await repriseIn({ ...links, REPRISE_X: "1", REPRISE_Y: "2" }, "inspect", directory)).toMatchObject({
    code: 0,
    error: "reprise inspect: REPRISE_X, REPRISE_Y: no such settings, left alone\n",
  });
}, 60_000);

test("no such model, not a GGUF, a GGUF cut short: exit 1, and the message names the file", async () => {
  const directory = temporaryDirectory();
  const text = join(directory, "notes.gguf");
  writeFileSync(text, "These are notes, not weights.");
  const cut = join(directory, "cut.gguf");
  writeFileSync(cut, Buffer.concat([Buffer.from("GGUF\x03\0\0\0"), Buffer.alloc(40, 1)]));
  for (const [model, words] of [
    [join(directory, "absent.gguf"), "no such file"],
    [text, "GGUF"],
    [cut, "cut.gguf"],
  ] as const) {
    const { code, error } = await reprise(
      "serve",
      "--model",
      model,
      "--port",
      "0",
      "--data-dir",
      join(directory, "data"),
    );
    expect(code, error).toBe(1);
    expect(error).toContain(words);
    expect(error).toContain(model);
    expect(error).not.toMatch(/\n\s+at /);
  }
}, 60_000);

test("the cache alone takes --pool-dir too, and refuses one that is not there", async () => {
  const { code, error } = await reprise("cache", "--data-dir", temporaryDirectory(), "--pool-dir", "/nowhere");
  expect(code).toBe(2);
  expect(error).toContain("--pool-dir /nowhere cannot be used");
});

test("a data directory that cannot be one: exit 2 at once, one line, no stack trace; for each command", async () => {
  const directory = temporaryDirectory();
  writeFileSync(join(directory, "file"), "");
  const open = join(directory, "open");
  mkdirSync(open);
  chmodSync(open, 0o777);
  for (const dataDir of ["/proc/reprise/data", "/sys/reprise", join(directory, "file", "below"), open])
    for (const command of [["serve", "--port", "0"], ["cache"]]) {
      const { code, error } = await reprise(...command, "--data-dir", dataDir, "--memory", "64MiB");
      expect(code, error).toBe(2);
      expect(error.trim().split("\n")).toHaveLength(1);
      expect(error).toContain(dataDir);
    }
  const { code, error } = await reprise("cache", "clear", "--data-dir", open);
  expect([code, error.trim().split("\n").length]).toEqual([1, 1]);
}, 120_000);

test("a port in use, and more memory than there is: exit 1, and what to do", async () => {
  const other = createServer().listen(0, "127.0.0.1");
  onTestFinished(() => void other.close());
  await new Promise((resolve) => other.once("listening", resolve));
  const { port } = other.address() as { port: number };
  const directory = temporaryDirectory();
  const taken = await reprise("serve", "--port", String(port), "--data-dir", directory, "--memory", "64MiB");
  expect(taken).toMatchObject({ code: 1, error: expect.stringContaining(String(port)) as string });

  const large = await reprise("serve", "--port", "0", "--data-dir", directory, "--memory", "900TiB");
  expect(large.code).toBe(1);
  expect(large.error).toMatch(/--memory 900 TiB does not fit: .* free/);
}, 60_000);

test("SIGTERM: a clean end, nothing left in /dev/shm, exit 0", async () => {
  const dataDirectory = temporaryDirectory();
  const server = await startServer({ dataDirectory, flags: ["--memory", "64MiB"] });
  onTestFinished(() => server.killAll());
  await ask(server.url, "/v1/completions", { prompt: "Note 1. The library in Oslo", max_tokens: 4, temperature: 0 });
  expect(poolOwners()).toContain(server.pid);
  expect(await server.stop()).toBe(0);
  expect(poolOwners()).not.toContain(server.pid);
  expect(filesBelow(dataDirectory).some((file) => file.endsWith(".sock"))).toBe(false);
}, 60_000);

test("bench: a name, then options; a table, and every sample in a file", async () => {
  const directory = temporaryDirectory();
  const server = await startServer({ dataDirectory: join(directory, "data"), flags: ["--memory", "64MiB"] });
  onTestFinished(() => server.killAll());
  const [json, csv] = [join(directory, "result.json"), join(directory, "samples.csv")];
  const { code, out, error } = await reprise(
    "bench",
    "smoke",
    "--url",
    server.url,
    "--json",
    json,
    "--csv",
    csv,
    "--api-key=mine",
    "--admin-key",
    "of-the-figures",
  );
  expect(error).toBe("");
  expect(code).toBe(0);
  expect(out).toMatch(/short +10\/10 /);
  expect(JSON.parse(readFileSync(json, "utf8"))).toMatchObject({
    bench: "smoke",
    command: expect.stringMatching(/^reprise bench smoke --url http.* --api-key=KEY --admin-key KEY$/) as string,
    targets: [{ metricsAfter: { reprise_engine_ready: 1 } }],
  });
  expect(readFileSync(csv, "utf8").trim().split("\r\n")).toHaveLength(11);
  await server.stop();

  const gone = await reprise("bench", "smoke", "--url", server.url);
  expect(gone).toMatchObject({ code: 1, error: expect.stringContaining("/v1/models names no model") as string });
  expect(await reprise("bench", "smoke", "--url", server.url, "--csv", "/no/such/folder/x.csv")).toMatchObject({
    code: 2,
  });
  expect(await reprise("bench")).toMatchObject({ code: 2, error: expect.stringContaining("smoke") as string });
  expect(await reprise("bench", "smoke", "--port", "1")).toMatchObject({
    code: 2,
    error: expect.stringContaining("--port: no such option") as string,
  });
  expect((await reprise("bench", "smoke", "--help")).out).toContain("--stall-timeout SECONDS");
}, 60_000);

test("bench first-light: our own server, from nothing to hits in memory after kill -9 and on disk after a restart", async () => {
  const json = join(temporaryDirectory(), "result.json");
  const args = ["first-light", "--tokens", "400", "--other-tokens", "100", "--warm-up", "0", "--json", json];
  expect(await reprise("bench", ...args)).toMatchObject({ code: 0, error: "" });
  const { samples } = JSON.parse(readFileSync(json, "utf8")) as {
    samples: { group: string; outcome: string; cachedTokens: number; reused: Record<string, number> }[];
  };
  const of = (group: string) => samples.find((sample) => sample.group === group);
  expect(samples.every(({ outcome }) => outcome === "ok")).toBe(true);
  expect([of("no cache")?.cachedTokens, of("cold")?.cachedTokens]).toEqual([0, 0]);
  expect(of("warm")?.reused["resident"]).toBeGreaterThan(300);
  expect(of("after others")?.reused["memory"]).toBeGreaterThan(300);
  expect(of("after kill -9")?.reused["memory"]).toBeGreaterThan(300);
  expect(of("restarted")?.reused["disk"]).toBeGreaterThan(300);
}, 60_000);

test("verify finds nothing to complain of in a sound cache, and shows on a terminal how far it is", async () => {
  const size = ["--prompts", isFull ? "6" : "3", "--tokens", "600"];
  const settings = ["--threads", "1", "--model", shippedModelPath, "--memory", "256MiB"];
  const { code, shown } = await onTerminal(["verify", ...settings, ...size]);
  const shares = [...shown.matchAll(/Verifying [=-]+ (\d+) %/g)].map(([, share]) => Number(share));
  expect(new Set(shares).size).toBeGreaterThan(5);
  expect(shares).toEqual(shares.toSorted((a, b) => a - b));
  expect(shown).toMatch(/warm\s+[1-9]\d\.\d %/);
  expect(shown.slice(shown.lastIndexOf("[?25h"))).toMatch(/equal\r\n$/); // the cursor is back
  expect(code).toBe(0);
}, 120_000);

test("verify that is ended leaves nothing behind", async () => {
  const folder = temporaryDirectory();
  const args = [commandPath, "verify", "--memory", "64MiB", "--model", shippedModelPath];
  const child = spawn(process.execPath, args, { stdio: "ignore", env: { ...env, TMPDIR: folder } });
  onTestFinished(() => void child.kill("SIGKILL"));
  const ended = once(child, "exit");
  await expect.poll(() => filesBelow(folder).some((file) => file.endsWith("secret")), { timeout: 20_000 }).toBe(true);
  child.kill("SIGINT");
  expect((await ended)[0]).toBe(130);
  expect(readdirSync(folder)).toEqual([]);
}, 60_000);

/** On a terminal of its own, made by `script`: both streams, and what moves the cursor. */
function onTerminal(args: readonly string[]): Promise<{ code: number; shown: string }> {
  const line = [process.execPath, commandPath, ...args].map((word) => `'${word}'`).join(" ");
  return new Promise((resolve) => {
    execFile("script", ["-qec", line, "/dev/null"], { timeout: 120_000, env }, (failure, shown) => {
      resolve({ code: typeof failure?.code === "number" ? failure.code : failure === null ? 0 : -1, shown });
    });
  });
}
