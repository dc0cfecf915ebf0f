import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test, vi } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { isHere, startPool } from "../../../test/support/mooncake.ts";
import { noSignal } from "../tier-suite.ts";
import { parseMooncakeAddress } from "./address.ts";
import { MooncakeStore } from "./mooncake-store.ts";

const built = fileURLToPath(new URL("../../../dist/tiers/mooncake/", import.meta.url));

/** A program that stands where Python should. */
function program(script: string): string {
  const path = join(temporaryDirectory(), "python");
  writeFileSync(path, `#!/bin/sh\n${script}\n`);
  chmodSync(path, 0o700);
  return path;
}

async function faultOf(path: string, fault: RegExp): Promise<void> {
  await using store = new MooncakeStore(
    parseMooncakeAddress(`mooncake://127.0.0.1:1?python=${encodeURIComponent(path)}`),
  );
  const said = () => store.getAll(["a"], 10, noSignal).then(() => "", (error: Error & { code: string }) => `${error.code}: ${error.message}`); // prettier-ignore
  await expect.poll(said, { timeout: 15_000 }).toMatch(fault);
}

test("a Python without the wheel: the tier is away, and says what to install", async () => {
  await faultOf(
    program('exec python3 -S "$@"'),
    /TIER_UNAVAILABLE: Mooncake at .*python has no Mooncake \(No module named 'mooncake'\): pip install mooncake-transfer-engine-non-cuda==/,
  );
}, 30_000);

test.each([
  ["a frame that is too long", "printf '\\377\\377\\377\\377' >&3; exec sleep 60", /a frame of 4294967295 bytes/],
  ["no JSON", "printf '\\002\\000\\000\\000{]' >&3; exec sleep 60", /makes no sense/],
  ["another message", "printf '\\007\\000\\000\\000{\"a\":1}' >&3; exec sleep 60", /a message of an unknown kind/],
  [
    "an answer that nobody waits for",
    'printf \'\\027\\000\\000\\000{"id":1,"results":[10]}\' >&3; exec sleep 60',
    /an answer to no question/,
  ],
  ["nothing, and ends", "echo broken >&2; exit 3", /it ended with code 3: broken/],
])(
  "a process that says %s is ended",
  async (_, script, fault) => {
    await faultOf(program(script), fault);
  },
  30_000,
);

test("it gets of our environment what Python and Mooncake read, and no secret", async () => {
  const seen = join(temporaryDirectory(), "environment");
  const given = { MC_GID_INDEX: "3", LD_LIBRARY_PATH: "/nowhere", PYTHONPATH: "/nowhere" };
  const secrets = [
    "AWS_SECRET_ACCESS_KEY",
    "HF_TOKEN",
    "OPENAI_API_KEY",
    "REPRISE_API_KEY",
    "SSH_AUTH_SOCK",
    "MCP_TOKEN",
  ];
  for (const [name, value] of [...Object.entries(given), ...secrets.map((each) => [each, "secret"] as const)])
    vi.stubEnv(name, value);
  onTestFinished(() => void vi.unstubAllEnvs());
  await faultOf(program(`env > ${seen}.new; mv ${seen}.new ${seen}; exit 3`), /it ended with code 3/);
  const environment = readFileSync(seen, "utf8");
  for (const [name, value] of Object.entries(given)) expect(environment).toContain(`${name}=${value}\n`);
  expect(environment).toContain(`PATH=${process.env["PATH"]}\n`);
  expect(environment).not.toContain("secret");
});

test("a program that is not there", async () => {
  await faultOf("no-such-python", /no-such-python cannot be started: .*ENOENT/);
});

test.skipIf(!isHere)(
  "the process ends with its parent, also when that is killed, and when it hangs",
  async () => {
    await using pool = await startPool();
    const source = `
    import { parseMooncakeAddress } from "${built}address.js";
    import { MooncakeStore } from "${built}mooncake-store.js";
    const store = new MooncakeStore(parseMooncakeAddress("${pool.address}"));
    for (;;) {
      const done = await store.getAll(["a"], 10, AbortSignal.timeout(5000)).then(() => true, () => false);
      if (done) break;
      await new Promise((later) => setTimeout(later, 50));
    }
    process.stdout.write(String(store.pid));
    setInterval(() => {}, 1000);`;
    for (const hangs of [false, true]) {
      const parent = spawn(process.execPath, ["--input-type=module", "-e", source], {
        stdio: ["ignore", "pipe", "inherit"],
      });
      const pid = Number(((await once(parent.stdout, "data")) as [Buffer])[0].toString());
      expect(existsSync(`/proc/${pid}`)).toBe(true);
      if (hangs) process.kill(pid, "SIGSTOP");
      parent.kill("SIGKILL");
      await expect.poll(() => existsSync(`/proc/${pid}/exe`), { timeout: 5000 }).toBe(false);
    }
  },
  40_000,
);

/** Speaks as Mooncake's client does: it is ready at once, has no heads, gives no payload, and says something more when it is to end. */
const standIn = `exec python3 -c '
import json, struct, socket
channel = socket.socket(fileno=3)
def say(message):
    text = json.dumps(message).encode()
    channel.sendall(struct.pack("<I", len(text)) + text)
def frame():
    head = channel.recv(4, socket.MSG_WAITALL)
    if not head:
        say({"state": "connecting", "why": ""})
        raise SystemExit
    return json.loads(channel.recv(struct.unpack("<I", head)[0], socket.MSG_WAITALL))
frame()
say({"state": "ready", "why": ""})
while True:
    asked = frame()
    if asked["do"] == "gather": say({"id": asked["id"], "results": [-1 for _ in asked["names"]]})
'`;

test("a lookup is answered while payloads take all the time that they may", async () => {
  const path = encodeURIComponent(program(standIn));
  await using store = new MooncakeStore(parseMooncakeAddress(`mooncake://127.0.0.1:1?python=${path}`));
  const lookup = () => store.getAll(["a"], 10, AbortSignal.timeout(1000)).catch(() => "late");
  await expect.poll(lookup, { timeout: 15_000 }).toEqual([undefined]);
  const ends = new AbortController();
  const loads = Array.from({ length: 40 }, (_, i) => store.read(`p${i}`, new Uint8Array(10), ends.signal).catch(() => "late")); // prettier-ignore
  expect(await lookup()).toEqual([undefined]);
  ends.abort();
  expect(await Promise.all(loads)).toEqual(loads.map(() => "late"));
}, 30_000);

test("what the process says while it is closed keeps nobody alive", async () => {
  const address = `mooncake://127.0.0.1:1?segment=1MiB&python=${encodeURIComponent(program(standIn))}`;
  const source = `
    import { parseMooncakeAddress } from "${built}address.js";
    import { MooncakeStore } from "${built}mooncake-store.js";
    const store = new MooncakeStore(parseMooncakeAddress("${address}"));
    while (await store.getAll(["a"], 10, AbortSignal.timeout(5000)).then(() => false, () => true))
      await new Promise((later) => setTimeout(later, 50));
    await store[Symbol.asyncDispose]();`;
  const user = spawn(process.execPath, ["--input-type=module", "-e", source], { stdio: "inherit", timeout: 10_000 });
  expect(await once(user, "exit")).toEqual([0, null]);
}, 30_000);

test("what comes from a process that has ended does not keep the next one from being started", async () => {
  const starts = join(temporaryDirectory(), "starts");
  const said = `'\\042\\000\\000\\000{"state":"connecting","why":"..."}'`;
  const path = program(`echo >> ${starts}; (sleep 0.4; printf ${said} >&3) & exit 3`);
  await using _ = new MooncakeStore(parseMooncakeAddress(`mooncake://127.0.0.1:1?python=${encodeURIComponent(path)}`));
  const count = () => (existsSync(starts) ? readFileSync(starts).length : 0);
  await expect.poll(count, { timeout: 10_000 }).toBeGreaterThan(3);
}, 30_000);
