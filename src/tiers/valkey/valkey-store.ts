/**
 * Values in Valkey or Redis: one server, whoever sentinels say is primary, or a cluster.
 *
 *     heads ──────► one stock client: many commands in one round trip, sentinels, topology of a cluster, reconnection
 *     payloads ───► connections of our own (bulk-connection.ts), each value through the one with the least to do
 *     writes ─────► others of that kind, so that a load never waits behind them
 *
 * Every value ends by itself after its time. A store may refuse writes, at its memory limit or with a full disk: that is an answer, and
 * no fault; it goes on being read, and is not written to for a while. A connection whose answer is late is closed and made again, so that no answers pile up.
 */
import { setMaxListeners } from "node:events";
import { Cluster, Command, Redis } from "ioredis";
import { describe, RepriseError } from "../../errors.ts";
import type { TierQuota } from "../../tier.ts";
import type { NamedValue, ValueStore } from "../shared/value-store.ts";
import type { ValkeyAddress } from "./address.ts";
import { BulkConnection, type Node } from "./bulk-connection.ts";
import { explained, whatIsWrong } from "./first-look.ts";
import { Quota } from "./quota.ts";

/** How long a store that refused a write is not written to. */
const refusedMs = 5000;
/** The memory limit; a disk that is full, so that snapshots or the log fail; too few replicas; a user who may only read. */
const refusals: ReadonlySet<string> = new Set(["OOM", "MISCONF", "NOREPLICAS", "NOPERM"]);
const connectMs = 5000;
/** Between two looks at what is wrong. */
const lookMs = 1000;
/** Pieces live longer than their head, by this and by what clocks and a slow write may take. */
const extraSeconds = 600;

/** The connections to one node. */
interface Links {
  readonly readers: readonly BulkConnection[];
  readonly writers: readonly BulkConnection[];
}

export class ValkeyStore implements ValueStore {
  readonly tier = "valkey";
  readonly #address: ValkeyAddress;
  readonly #client: Redis | Cluster;
  readonly #links = new Map<string, Links>();
  readonly #quota: Quota;
  /** Why the client does not stand; undefined while it does. */
  #fault: Error | undefined = new Error("it is not connected yet");
  /** What was seen to be wrong with the address: nothing is asked until it is right. */
  #wrong: string | undefined;
  #looking: Promise<void> | undefined;
  #lookedAt = Number.NEGATIVE_INFINITY;
  #refusedUntil = 0;

  /** Connects in the background: a store that is away is away, and the cache starts without it. */
  constructor(address: ValkeyAddress) {
    this.#address = address;
    this.#client = connect(address);
    this.#client.on("error", (error) => {
      this.#fault = error; // whoever asks is told
      this.#lookAgain();
    });
    this.#client.on("ready", () => void Promise.resolve(this.#looking).then(() => this.#look()));
    const name = (account: string) => `${address.prefix}quota:${account}`;
    const limits = { ...address, ttlSeconds: address.ttlSeconds + extraSeconds }; // as long as pieces live
    this.#quota = new Quota(limits, {
      read: async (accounts) => {
        const values = await Promise.all(accounts.map((account) => this.#client.get(name(account))));
        return values.map((value) => Number(value ?? 0));
      },
      add: async (account, bytes, ttlSeconds) => {
        const [value] = await Promise.all([
          this.#client.incrby(name(account), bytes),
          this.#client.expire(name(account), ttlSeconds),
        ]);
        return value;
      },
    });
  }

  /** "cache.example:6379", "mymaster of sentinel.example:26379". */
  get where(): string {
    const { hosts, primary, db } = this.#address;
    const places = hosts.map(({ host, port }) => `${host.includes(":") ? `[${host}]` : host}:${port}`).join(",");
    return `${primary === "" ? "" : `${primary} of `}${places}${db === 0 ? "" : `/${db}`}`;
  }

  quota(): TierQuota | undefined {
    return this.#quota.known;
  }

  getAll(names: readonly string[], maxBytes: number, signal: AbortSignal): Promise<(Buffer | undefined)[]> {
    return this.#ask(signal, async (client) => {
      // One by one, not MGET: a cluster's node answers for its own names only, and all go out together anyway.
      const values = await Promise.all(names.map((name) => client.getrangeBuffer(name, 0, maxBytes)));
      return values.map((value) => (value.length === 0 || value.length > maxBytes ? undefined : value));
    });
  }

  read(name: string, into: Uint8Array, signal: AbortSignal): Promise<"read" | "gone"> {
    return this.#move(name, "readers", signal, (link) => link.get(name, into, signal));
  }

  async write(values: readonly NamedValue[], tenant: string, signal: AbortSignal): Promise<"written" | "full"> {
    if (performance.now() < this.#refusedUntil) return "full";
    const { ttlSeconds } = this.#address;
    const total = values.reduce((sum, { bytes }) => sum + bytes.length, 0);
    try {
      if (!(await this.#ask(signal, () => this.#quota.take(tenant, total), "write"))) return "full";
      const set = ({ name, bytes }: NamedValue, seconds: number) =>
        this.#move(name, "writers", signal, (link) => link.set(name, bytes, seconds, signal));
      const ended = await Promise.allSettled(values.slice(0, -1).map((each) => set(each, ttlSeconds + extraSeconds)));
      for (const each of ended) if (each.status === "rejected") throw each.reason;
      await set(values.at(-1)!, ttlSeconds); // a head at least
      return "written";
    } catch (error) {
      if (!this.#isRefusal(error)) throw error;
      this.#refusedUntil = performance.now() + refusedMs;
      return "full";
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.disconnect();
    this.#closeLinks();
    await Promise.resolve();
  }

  /** @throws RepriseError TIER_UNAVAILABLE, or what the server said where that refuses a write */
  async #ask<T>(
    signal: AbortSignal,
    work: (client: Redis | Cluster) => Promise<T>,
    what: "read" | "write" = "read",
  ): Promise<T> {
    this.#mustBeRight();
    let onAbort = () => {};
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => {
        this.#client.disconnect(true); // what it has still to answer is nobody's any more
        reject(new Error("it did not answer in time"));
      };
      if (signal.aborted) onAbort();
      signal.addEventListener("abort", onAbort);
    });
    try {
      return await Promise.race([work(this.#client), aborted]);
    } catch (error) {
      if (what === "write" && this.#isRefusal(error)) throw error;
      throw this.#unavailable(this.#fault ?? error); // of a command that was not sent the client says only that
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Moves a value to or from the node that has the name. @throws as {@link #ask} */
  async #move<T>(
    name: string,
    kind: keyof Links,
    signal: AbortSignal,
    work: (link: BulkConnection) => Promise<T>,
  ): Promise<T> {
    setMaxListeners(0, signal); // one for each value of a record
    try {
      this.#mustBeRight();
      return await work(leastBusy(this.#linksTo(this.#nodeOf(name))[kind]));
    } catch (error) {
      if (kind === "writers" && this.#isRefusal(error)) throw error;
      if (/^(?:MOVED|READONLY|CLUSTERDOWN) /.test(describe(error))) this.#lookAround();
      throw this.#unavailable(error);
    }
  }

  /** @throws RepriseError TIER_UNAVAILABLE */
  #mustBeRight(): void {
    if (this.#fault === undefined && this.#wrong === undefined) return;
    this.#lookAgain();
    if (this.#wrong !== undefined) throw this.#away(this.#wrong);
  }

  #lookAgain(): void {
    if (performance.now() - this.#lookedAt > lookMs) void this.#look();
  }

  /** In the background. A client that stands is used once nothing is seen to be wrong. */
  #look(): Promise<void> {
    const look = async () => {
      const isUp = this.#client.status === "ready";
      const wrong = await this.#whatIsWrong(isUp);
      this.#lookedAt = performance.now();
      if (isUp !== (this.#client.status === "ready")) return; // the look that follows tells
      this.#wrong = wrong;
      if (isUp && wrong === undefined) this.#fault = undefined;
    };
    return (this.#looking ??= look().finally(() => (this.#looking = undefined)));
  }

  /** With one of several hosts nothing must be wrong. */
  async #whatIsWrong(isUp: boolean): Promise<string | undefined> {
    const address = this.#address;
    if (isUp && this.#client instanceof Redis) {
      const { remoteAddress: host, remotePort: port } = this.#client.stream;
      if (host === undefined || port === undefined) return undefined; // it has gone: the client says so
      const node = address.kind === "one" ? address.hosts[0]! : { host, port }; // one at least
      return whatIsWrong({ ...address, kind: "one" }, node, { isUsed: true });
    }
    const found = await Promise.all(address.hosts.map((host) => whatIsWrong(address, host, { isUsed: isUp })));
    return found.includes(undefined) ? undefined : found[0];
  }

  #linksTo(node: Node): Links {
    const key = `${node.host} ${node.port}`;
    let links = this.#links.get(key);
    if (links === undefined) {
      const { connections } = this.#address;
      const open = () => new BulkConnection(node, this.#address);
      const readers = Array.from({ length: connections }, open);
      links = { readers, writers: Array.from({ length: connections }, open) };
      this.#links.set(key, links);
    }
    return links;
  }

  /** Where the client is connected to: for a cluster where the name's slot is. */
  #nodeOf(name: string): Node {
    const { kind, hosts } = this.#address;
    if (kind === "one") return hosts[0]!; // one at least
    if (this.#fault !== undefined) throw this.#fault;
    if (this.#client instanceof Cluster) {
      const [primary] = this.#client.slots[new Command("get", [name]).getSlot()] ?? [];
      const [, host, port] = /^(.*):(\d+)$/.exec(primary ?? "") ?? [];
      if (host === undefined) throw new Error("no node of the cluster has this slot");
      return { host, port: Number(port) };
    }
    const { remoteAddress: host, remotePort: port } = this.#client.stream;
    if (host === undefined || port === undefined) throw new Error("no primary is known now");
    return { host, port };
  }

  /** Another node has what we asked for: the client finds out which, and links to nodes that are gone go. */
  #lookAround(): void {
    if (this.#client instanceof Cluster) this.#client.refreshSlotsCache();
    else if (this.#address.kind === "sentinel") this.#client.disconnect(true);
    this.#closeLinks();
  }

  #closeLinks(): void {
    for (const { readers, writers } of this.#links.values()) for (const link of [...readers, ...writers]) link.close();
    this.#links.clear();
  }

  /** It may not be written to now, for a reason that leaves reading as it is. */
  #isRefusal(error: unknown): boolean {
    if (error instanceof RepriseError) return false;
    const [code = ""] = describe(error).split(" ", 1);
    return refusals.has(code) || (code === "READONLY" && this.#address.kind === "one"); // else another is the primary by now
  }

  #unavailable(error: unknown): RepriseError {
    if (error instanceof RepriseError) return error;
    return this.#away(explained(describe(error), this.#address), error);
  }

  #away(why: string, cause?: unknown): RepriseError {
    return new RepriseError(
      "TIER_UNAVAILABLE",
      `Valkey at ${this.where}: ${why}`,
      cause === undefined ? {} : { cause },
    );
  }
}

function connect(address: ValkeyAddress): Redis | Cluster {
  const { kind, hosts, primary, db, username, password, tls } = address;
  const secure = tls === undefined ? undefined : tls.ca === undefined ? {} : { ca: tls.ca };
  const common = {
    connectTimeout: connectMs,
    // A command that cannot be sent now is a miss now.
    maxRetriesPerRequest: 0,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    retryStrategy: (times: number) => Math.min(5000, 100 * 2 ** times),
    disableClientInfo: true,
    connectionName: "reprise",
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    ...(secure === undefined ? {} : { tls: secure }),
  };
  if (kind === "cluster") {
    const { retryStrategy, enableOfflineQueue, ...redisOptions } = common;
    return new Cluster([...hosts], { redisOptions, enableOfflineQueue, clusterRetryStrategy: retryStrategy });
  }
  if (kind === "sentinel") {
    const sentinels = secure === undefined ? {} : { enableTLSForSentinelMode: true, sentinelTLS: secure };
    return new Redis({ ...common, ...sentinels, sentinels: [...hosts], name: primary, db });
  }
  return new Redis({ ...common, host: hosts[0]!.host, port: hosts[0]!.port, db });
}

function leastBusy(connections: readonly BulkConnection[]): BulkConnection {
  return connections.reduce((least, each) => (each.bytes < least.bytes ? each : least));
}
