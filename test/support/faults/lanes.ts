/** Two hosts and what they share: Valkey with sentinels, a bucket, or each other and a third host; and the faults of each. */
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { Random } from "../../../src/bench/notes/random.ts";
import { startFakeS3, type Fault } from "../fake-s3.ts";
import { FaultyRelay } from "../faulty-relay.ts";
import { Hosts, hostsCanBeMade } from "../hosts.ts";
import { bucket, keys } from "../s3.ts";
import { launchCache, startServer, type LaunchedServer } from "../server.ts";
import { freePort, startSentinels, type StoreServer } from "../valkey.ts";
import { FaultHost, movableClock } from "./host.ts";
import type { Lane } from "./run-faults.ts";

const partitionMs = 5000;
const hourSeconds = 3600;

interface Start {
  readonly folder: string;
  readonly name: string;
  readonly flags: readonly string[];
  readonly netns?: string;
  readonly environment?: Readonly<Record<string, string>>;
  readonly hasModel?: boolean;
  readonly mayDie?: boolean;
}

async function startHost({
  folder,
  name,
  flags,
  netns,
  environment = {},
  hasModel,
  mayDie,
}: Start): Promise<FaultHost> {
  const dataDirectory = join(folder, name);
  const clock = movableClock(folder);
  const common = {
    dataDirectory,
    environment: { REPRISE_THREADS: "1", ...environment, ...clock?.environment },
    ...(netns && { netns }),
  };
  const options = { name, ...(netns && { netns }), ...(clock && { clockFile: clock.file }), ...(mayDie && { mayDie }) };
  const socketPath = join(dataDirectory, "cache.sock");
  const all = ["--disk", "0", "--memory", hasModel === true ? "256MiB" : "64MiB", ...flags];
  if (hasModel === true) {
    const model = ["--deterministic", "--context", "2048", "--socket", socketPath];
    const process = await startServer({ ...common, flags: [...all, ...model] });
    return new FaultHost({ ...options, process, socketPath, url: process.url });
  }
  const process = launchCache({ ...common, flags: all });
  return new FaultHost({ ...options, process, socketPath: (await process.ready).replace(/^unix:/, "") });
}

/** Opens a lane; what was opened before something failed is closed. */
async function opened(
  open: (later: (undo: () => unknown) => void) => Promise<Omit<Lane, typeof Symbol.asyncDispose>>,
): Promise<Lane> {
  const undo: (() => unknown)[] = [];
  const close = async () => {
    for (const each of undo.splice(0).toReversed()) await each();
  };
  try {
    return { ...(await open((each) => undo.push(each))), [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Values are changed where they lie: one in ten, a bit of each. Two numbers say which. */
export const damageTenth = `
  local changed = 0
  for i, name in ipairs(redis.call('KEYS', '*')) do
    local bytes = redis.call('TYPE', name).ok == 'string' and redis.call('STRLEN', name) or 0
    if i % 10 == tonumber(ARGV[1]) and bytes > 0 then
      local at = (tonumber(ARGV[2]) + i * 7919) % bytes
      local byte = string.byte(redis.call('GETRANGE', name, at, at))
      redis.call('SETRANGE', name, at, string.char(bit.bxor(byte, 4)))
      changed = changed + 1
    end
  end
  return changed`;
/** One value in ten goes: heads stay whose payloads have gone, and the other way round. */
const lose = `
  local gone = 0
  for i, name in ipairs(redis.call('KEYS', '*')) do
    if i % 10 == tonumber(ARGV[1]) then gone = gone + redis.call('DEL', name) end
  end
  return gone`;

/** Valkey or Redis: a primary, a replica and three sentinels, in namespaces of their own where those can be made. Hosts have the model. */
export const valkeyLane = (folder: string) =>
  opened(async (later) => {
    const net = hostsCanBeMade ? Hosts.make(["a", "b", "store"]) : undefined;
    later(() => net?.[Symbol.dispose]());
    const place = net && { host: net.address("store"), netns: net.namespace("store") };
    const group = await startSentinels(place);
    later(() => group[Symbol.asyncDispose]());
    const nodes = [group.primary, group.replica];
    const sentinels = group.sentinels.map(({ port }) => `${place?.host ?? "127.0.0.1"}:${port}`).join(",");
    const flags = ["--tier", `valkey+sentinel://${sentinels}/mymaster?max=1GiB`];
    const hosts: FaultHost[] = [];
    for (const name of ["a", "b"]) {
      const netns = net?.namespace(name);
      const host = await startHost({
        folder: join(folder, `${name}-clock`),
        name,
        flags,
        hasModel: true,
        ...(netns && { netns }),
      });
      later(() => host.close());
      hosts.push(host);
    }
    const primary = async (): Promise<StoreServer> => {
      const said = await group.sentinels[0]!.command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster");
      return nodes.find(({ port }) => String((said as string[])[1]) === String(port))!; // one of the two
    };
    const config = (...words: readonly string[]) =>
      Promise.all(nodes.map((node) => node.command("CONFIG", "SET", ...words).catch(() => {}))); // one may be down
    const script = async (text: string, random: Random) =>
      void (await (
        await primary()
      )
        .command("EVAL", text, "0", String(random.below(10)), String(random.below(5000)))
        .catch(() => {}));
    const stopped = async (stores: readonly StoreServer[]) => {
      for (const { process } of stores) process.kill("SIGSTOP");
      await sleep(partitionMs);
      for (const { process } of stores) process.kill("SIGCONT");
    };
    return {
      name: "valkey",
      tier: "valkey",
      hosts,
      faults: {
        async "kill -9 of the primary"() {
          const node = await primary();
          await node.kill();
          await sleep(2500); // sentinels have seen it and made the other one primary
          await node.restart();
        },
        async "kill -9 of the store"() {
          for (const node of nodes) await node.kill();
          for (const node of nodes) await node.restart();
        },
        async failover() {
          await group.sentinels[0]!.command("SENTINEL", "FAILOVER", "mymaster").catch(() => {}); // one is under way
          await sleep(2000);
        },
        async partition(random) {
          if (net === undefined) return stopped(nodes);
          const cut = random.pick(["a", "b", "store"]);
          net.connect(cut, "down");
          await sleep(partitionMs);
          net.connect(cut, "up");
        },
        async "a hanging store"() {
          await stopped(nodes);
        },
        async full() {
          await config("maxmemory", "3mb");
          await sleep(3000);
          await config("maxmemory", "0");
        },
        "wrong bytes": (random) => script(damageTenth, random),
        "lost values": (random) => script(lose, random),
        "a clock": (random) => moveClock(hosts, random),
      },
    };
  });

/** An S3 server, which each host reaches through a relay of its own. */
export const bucketLane = (folder: string) =>
  opened(async (later) => {
    const store = await startFakeS3();
    later(() => store[Symbol.asyncDispose]());
    const hosts: FaultHost[] = [];
    const relays: FaultyRelay[] = [];
    for (const name of ["a", "b"]) {
      const relay = await FaultyRelay.start(() => store.port);
      later(() => relay[Symbol.asyncDispose]());
      relays.push(relay);
      const flags = ["--tier", `s3://${bucket}/test?endpoint=http://127.0.0.1:${relay.port}`];
      const host = await startHost({ folder: join(folder, `${name}-clock`), name, flags, environment: keys });
      later(() => host.close());
      hosts.push(host);
    }
    const meddled = async (ms: number, meddle: typeof store.meddle) => {
      store.meddle = meddle;
      await sleep(ms);
      store.meddle = skewed;
    };
    /** As AWS does: signed a quarter of an hour from now or more. */
    const skewed = ({ headers }: { headers: Readonly<Record<string, unknown>> }): Fault | undefined => {
      const signed = String(headers["x-amz-date"]).replace(/^(....)(..)(..T..)(..)(..Z)$/, "$1-$2-$3:$4:$5");
      return Math.abs(Date.parse(signed) - Date.now()) > 900_000
        ? { status: 403, code: "RequestTimeTooSkewed" }
        : undefined;
    };
    store.meddle = skewed;
    const some = (random: Random, percent: number, fault: () => Fault) => (request: Parameters<typeof skewed>[0]) =>
      skewed(request) ?? (random.percent(percent) ? fault() : undefined);
    return {
      name: "bucket",
      tier: "s3",
      hosts,
      faults: {
        async "kill -9 of the store"() {
          for (const relay of relays) relay.refuse();
          await sleep(1500);
          for (const relay of relays) relay.pass();
        },
        async partition(random) {
          const relay = random.pick(relays);
          relay.hold();
          await sleep(partitionMs);
          relay.pass();
        },
        "503 SlowDown": (random) =>
          meddled(
            3000,
            some(random, 50, () => ({ status: 503, code: "SlowDown", headers: { "retry-after": "1" } })),
          ),
        "cut bodies": (random) =>
          meddled(
            3000,
            some(random, 30, () => ({ cutAt: random.below(30_000) })),
          ),
        "late answers": (random) =>
          meddled(
            3000,
            some(random, 50, () => ({ delayMs: random.below(3000) })),
          ),
        "wrong bytes on the way": (random) =>
          meddled(
            2000,
            some(random, 10, () => ({ bentAt: random.below(20_000) })),
          ),
        async full() {
          await meddled(
            2000,
            (request) =>
              skewed(request) ?? (request.method === "PUT" ? { status: 507, code: "XMinioStorageFull" } : undefined),
          );
        },
        async "stale reads"(random) {
          const now = new Map(store.objects);
          await meddled(
            3000,
            (request) =>
              skewed(request) ??
              (request.method === "GET" && !now.has(request.name) ? { status: 404, code: "NoSuchKey" } : undefined),
          );
          for (const name of now.keys()) if (random.percent(5)) store.objects.delete(name);
        },
        async "wrong bytes"(random) {
          for (const object of store.objects.values())
            if (random.percent(10)) {
              object.bytes = Buffer.from(object.bytes);
              object.bytes[random.below(object.bytes.length)]! ^= 4; // none is empty
            }
          await Promise.resolve();
        },
        "a clock": (random) => moveClock(hosts, random),
      },
    };
  });

/** Two hosts that read from each other and from a third, which has engines as well and may die. */
export const peerLane = (folder: string) =>
  opened(async (later) => {
    const [portA, portB, portC] = [await freePort(), await freePort(), await freePort()];
    const listen = (port: number) => ["--listen", `127.0.0.1:${port}`];
    const relays = await Promise.all([portC, portC, portA, portB].map((port) => FaultyRelay.start(() => port)));
    for (const relay of relays) later(() => relay[Symbol.asyncDispose]());
    const reads = (...places: readonly number[]) =>
      places.flatMap((place) => ["--tier", `peer://127.0.0.1:${relays[place]!.port}`]); // one of the four
    const start = async (name: string, flags: readonly string[], mayDie = false) => {
      const host = await startHost({ folder: join(folder, `${name}-clock`), name, flags, mayDie });
      later(() => host.close());
      return host;
    };
    const a = await start("a", [...listen(portA), ...reads(0, 3)]);
    const b = await start("b", [...listen(portB), ...reads(1, 2)]);
    const flagsOfC = ["--disk", "0", "--memory", "64MiB", ...listen(portC)];
    const c = await start("c", listen(portC), true);
    const third: LaunchedServer[] = [];
    const pidOfC = () => third.at(-1)?.pid ?? c.options.process.pid;
    const all = (how: "hold" | "cut" | "bend" | "pass") => {
      for (const relay of relays) relay[how]();
    };
    const hosts = [a, b, c];
    return {
      name: "peer",
      tier: "peer",
      hosts,
      faults: {
        async "kill -9 of a host"() {
          process.kill(-pidOfC(), "SIGKILL");
          await sleep(500);
          const again = launchCache({ dataDirectory: join(folder, "c-clock", "c"), flags: flagsOfC });
          later(() => again.killAll());
          third.push(again);
          await again.ready;
        },
        async "a hanging host"() {
          const pid = pidOfC();
          process.kill(pid, "SIGSTOP");
          await sleep(partitionMs);
          process.kill(pid, "SIGCONT");
        },
        async partition(random) {
          const relay = random.pick(relays);
          relay.hold();
          await sleep(partitionMs);
          relay.pass();
        },
        async "cut connections"() {
          for (let i = 0; i < 10; i += 1) {
            all("cut");
            await sleep(200);
          }
        },
        async "wrong bytes on the way"() {
          all("bend");
          await sleep(3000);
          all("pass");
        },
        "a clock": (random) => moveClock([a, b], random),
      },
    };
  });

/** One host's is an hour off, this way or that, from now on. */
async function moveClock(hosts: readonly FaultHost[], random: Random): Promise<void> {
  random.pick(hosts).setClock(random.pick([-hourSeconds, 0, hourSeconds]));
  await sleep(1000);
}
