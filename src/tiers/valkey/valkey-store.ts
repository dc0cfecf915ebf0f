/**
 * Values in Valkey or Redis: one server, whoever sentinels say is primary, or a cluster.
 *
 *     heads ──────► one connection, many commands in one round trip
 *     payloads ───► several connections, each value read by the one with the least to do
 *     writes ─────► connections of their own, so that a load never waits behind them
 *
 * Every value ends by itself after its time. A store at its memory limit refuses writes: that is an answer, and no fault; it is not
 * asked again for a while. A connection whose answer is late is closed and made again, so that no answers pile up.
 */
import { setMaxListeners } from "node:events";
import { Cluster, Redis } from "ioredis";
import { describe, RepriseError } from "../../errors.ts";
import type { NamedValue, ValueStore } from "../shared/value-store.ts";
import type { ValkeyAddress } from "./address.ts";
import { Quota } from "./quota.ts";

/** Redis stores up to 512 MiB in one value; one that is so long keeps all other clients waiting. */
const maxValueBytes = 64 * 1024 * 1024;
/** How long a store that was full is left alone. */
const fullMs = 5000;
const connectMs = 5000;
/** Pieces live longer than their head, by this and by what clocks and a slow write may take. */
const extraSeconds = 600;

type Client = Redis | Cluster;

interface Connection {
  readonly client: Client;
  /** What it has under way. */
  bytes: number;
  /** Why it does not stand; undefined while it does. */
  fault: Error | undefined;
}

export class ValkeyStore implements ValueStore {
  readonly tier = "valkey";
  readonly maxValueBytes = maxValueBytes;
  readonly #address: ValkeyAddress;
  readonly #heads: Connection;
  readonly #readers: readonly Connection[];
  readonly #writers: readonly Connection[];
  readonly #quota: Quota;
  #fullUntil = 0;

  /** Connects in the background: a store that is away is away, and the cache starts without it. */
  constructor(address: ValkeyAddress) {
    this.#address = address;
    const open = () => connect(address);
    this.#heads = open();
    this.#readers = Array.from({ length: address.connections }, open);
    this.#writers = Array.from({ length: Math.ceil(address.connections / 2) }, open);
    const name = (account: string) => `${address.prefix}quota:${account}`;
    this.#quota = new Quota(address, {
      sum: async (accounts) => {
        const values = await Promise.all(accounts.map((account) => this.#heads.client.get(name(account))));
        return values.reduce((total, value) => total + Number(value ?? 0), 0);
      },
      add: async (account, bytes, ttlSeconds) => {
        await this.#heads.client.incrby(name(account), bytes);
        await this.#heads.client.expire(name(account), ttlSeconds);
      },
    });
  }

  getAll(names: readonly string[], maxBytes: number, signal: AbortSignal): Promise<(Buffer | undefined)[]> {
    return this.#ask(this.#heads, 0, signal, async (client) => {
      // One by one, not MGET: a cluster's node answers for its own names only, and all go out together anyway.
      const values = await Promise.all(names.map((name) => client.getrangeBuffer(name, 0, maxBytes)));
      return values.map((value) => (value.length === 0 || value.length > maxBytes ? undefined : value));
    });
  }

  async read(name: string, into: Uint8Array, signal: AbortSignal): Promise<"read" | "gone"> {
    const value = await this.#ask(leastBusy(this.#readers), into.length, signal, (client) => client.getBuffer(name));
    if (value?.length !== into.length) return "gone";
    into.set(value);
    return "read";
  }

  async write(values: readonly NamedValue[], tenant: string, signal: AbortSignal): Promise<"written" | "full"> {
    if (performance.now() < this.#fullUntil) return "full";
    const { ttlSeconds } = this.#address;
    const total = values.reduce((sum, { bytes }) => sum + bytes.length, 0);
    try {
      if (!(await this.#ask(this.#heads, 0, signal, () => this.#quota.take(tenant, total)))) return "full";
      const set = ({ name, bytes }: NamedValue, seconds: number) =>
        this.#ask(leastBusy(this.#writers), bytes.length, signal, (client) =>
          client.set(name, asBuffer(bytes), "EX", seconds),
        );
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
    for (const { client } of [this.#heads, ...this.#readers, ...this.#writers]) client.disconnect();
    await Promise.resolve();
  }

  /** @throws RepriseError TIER_UNAVAILABLE, or what the server said where that is an answer */
  async #ask<T>(
    connection: Connection,
    bytes: number,
    signal: AbortSignal,
    work: (client: Client) => Promise<T>,
  ): Promise<T> {
    const { client } = connection;
    connection.bytes += bytes + 1;
    let onAbort = () => {};
    const aborted = new Promise<never>((_, reject) => {
      onAbort = () => {
        client.disconnect(true); // what it has still to answer is nobody's any more
        reject(new RepriseError("TIER_UNAVAILABLE", `${this.#where()} did not answer in time`));
      };
      if (signal.aborted) onAbort();
      setMaxListeners(0, signal); // one for each value of a record
      signal.addEventListener("abort", onAbort);
    });
    try {
      return await Promise.race([work(client), aborted]);
    } catch (error) {
      if (error instanceof RepriseError || isFull(error)) throw error;
      const why = connection.fault ?? error; // of a command that was not sent the client says only that
      throw new RepriseError("TIER_UNAVAILABLE", `${this.#where()}: ${describe(why)}`, { cause: why });
    } finally {
      signal.removeEventListener("abort", onAbort);
      connection.bytes -= bytes + 1;
    }
  }

  #where(): string {
    const { hosts, primary } = this.#address;
    const [first] = hosts;
    return `Valkey at ${primary === "" ? "" : `${primary} of `}${first!.host}:${first!.port}`; // one at least
  }
}

function connect(address: ValkeyAddress): Connection {
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
  const client = open();
  const connection: Connection = { client, bytes: 0, fault: new Error("it is not connected yet") };
  client.on("error", (error) => (connection.fault = error)); // whoever asks is told
  client.on("ready", () => (connection.fault = undefined));
  return connection;

  function open(): Client {
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
}

function leastBusy(connections: readonly Connection[]): Connection {
  return connections.reduce((least, each) => (each.bytes < least.bytes ? each : least));
}

/** The store is at its memory limit, or may not be written now for the same reason. */
function isFull(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("OOM ");
}

function asBuffer(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
