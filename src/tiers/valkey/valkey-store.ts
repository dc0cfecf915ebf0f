/**
 * Values in Valkey or Redis: one server, whoever sentinels say is primary, or a cluster.
 *
 *     heads ──────► one stock client: many commands in one round trip, sentinels, topology of a cluster, reconnection
 *     payloads ───► connections of our own (bulk-connection.ts), each value through the one with the least to do
 *     writes ─────► others of that kind, so that a load never waits behind them
 *
 * Every value ends by itself after its time. A store at its memory limit refuses writes: that is an answer, and no fault; it is not
 * asked again for a while. A connection whose answer is late is closed and made again, so that no answers pile up.
 */
import { setMaxListeners } from "node:events";
import { Cluster, Command, Redis } from "ioredis";
import { describe, RepriseError } from "../../errors.ts";
import type { NamedValue, ValueStore } from "../shared/value-store.ts";
import type { ValkeyAddress } from "./address.ts";
import { BulkConnection, type Node } from "./bulk-connection.ts";
import { Quota } from "./quota.ts";

/** How long a store that was full is left alone. */
const fullMs = 5000;
const connectMs = 5000;
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
  #fullUntil = 0;

  /** Connects in the background: a store that is away is away, and the cache starts without it. */
  constructor(address: ValkeyAddress) {
    this.#address = address;
    this.#client = connect(address);
    this.#client.on("error", (error) => (this.#fault = error)); // whoever asks is told
    this.#client.on("ready", () => (this.#fault = undefined));
    const name = (account: string) => `${address.prefix}quota:${account}`;
    this.#quota = new Quota(address, {
      sum: async (accounts) => {
        const values = await Promise.all(accounts.map((account) => this.#client.get(name(account))));
        return values.reduce((total, value) => total + Number(value ?? 0), 0);
      },
      add: async (account, bytes, ttlSeconds) => {
        await this.#client.incrby(name(account), bytes);
        await this.#client.expire(name(account), ttlSeconds);
      },
    });
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
    if (performance.now() < this.#fullUntil) return "full";
    const { ttlSeconds } = this.#address;
    const total = values.reduce((sum, { bytes }) => sum + bytes.length, 0);
    try {
      if (!(await this.#ask(signal, () => this.#quota.take(tenant, total)))) return "full";
      const set = ({ name, bytes }: NamedValue, seconds: number) =>
        this.#move(name, "writers", signal, (link) => link.set(name, bytes, seconds, signal));
      const ended = await Promise.allSettled(values.slice(0, -1).map((each) => set(each, ttlSeconds + extraSeconds)));
      for (const each of ended) if (each.status === "rejected") throw each.reason;
      await set(values.at(-1)!, ttlSeconds); // a head at least
      return "written";
    } catch (error) {
      if (!isFull(error)) throw error;
      this.#fullUntil = performance.now() + fullMs;
      return "full";
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#client.disconnect();
    this.#closeLinks();
    await Promise.resolve();
  }

  /** @throws RepriseError TIER_UNAVAILABLE, or what the server said where that is an answer */
  async #ask<T>(signal: AbortSignal, work: (client: Redis | Cluster) => Promise<T>): Promise<T> {
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
      throw isFull(error) ? error : this.#unavailable(this.#fault ?? error); // of a command that was not sent the client says only that
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
      return await work(leastBusy(this.#linksTo(this.#nodeOf(name))[kind]));
    } catch (error) {
      if (isFull(error)) throw error;
      if (/^(?:MOVED|READONLY|CLUSTERDOWN) /.test(describe(error))) this.#lookAround();
      throw this.#unavailable(error);
    }
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

  #unavailable(error: unknown): RepriseError {
    if (error instanceof RepriseError) return error;
    const { hosts, primary } = this.#address;
    const [first] = hosts;
    const where = `Valkey at ${primary === "" ? "" : `${primary} of `}${first!.host}:${first!.port}`; // one at least
    return new RepriseError("TIER_UNAVAILABLE", `${where}: ${describe(error)}`, { cause: error });
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

/** The store is at its memory limit, or may not be written now for the same reason. */
function isFull(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("OOM ");
}
