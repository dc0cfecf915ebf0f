/**
 * Other hosts' caches as a tier: read only, and asked all at the same time.
 *
 *     find ──┬──► host A ──► 12 chunks         the one that has the most of the text is read from;
 *            ├──► host B ──► 40 chunks  ◄──    one that does not answer in time is left out and connected anew
 *            └──► host C  …
 *
 * The tier is away when all of its hosts are. Nothing is believed: lengths must fit, and each payload must match the checksum that its
 * host has computed while it sent it, so that what the way has changed is a miss. What a host itself makes up cannot be told from
 * what it has computed, which is why hosts know each other by certificate and token (address.ts).
 */
import { within } from "../../deadline.ts";
import { RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import { silentLog, type Log } from "../../log.ts";
import type { FoundRecord, PartMemory, RecordId, Tier, TierStats } from "../../tier.ts";
import type { PayloadPacker } from "../../tiers/shared/packing.ts";
import { maxKeys } from "../protocol.ts";
import type { PeerAddress } from "./address.ts";
import { PeerHost } from "./peer-host.ts";

export interface PeerTierOptions {
  readonly hosts: readonly PeerAddress[];
  /** For hosts that are asked to pack. */
  readonly packer?: PayloadPacker | undefined;
  readonly log?: Log;
  /** How long a host may take to say what it has: 0.75 s unless given, less than whoever asks waits. */
  readonly patienceMs?: number;
  /** How long a host may be silent in the middle of a chunk: 5 s unless given. */
  readonly stallMs?: number;
  /** How often a silent connection is tried: 20 s unless given. */
  readonly pingMs?: number;
  /** The first pause before a host is connected anew: 0.2 s unless given, and up to 32 times as long. */
  readonly reconnectMs?: number;
}

export interface PeerTierStats extends TierStats {
  /** Whether it can be asked now, by host. */
  readonly hosts: Readonly<Record<string, "there" | "away">>;
  /** What has travelled of what was read: less than that where it is packed. */
  readonly readStoredBytes: number;
}

/** Keys asked for first, of some 32,000 tokens: one round trip for nearly every text. */
const firstKeys = 512;
/** Hosts that one tier may have. */
export const mostHosts = 16;

export class PeerTier implements Tier {
  readonly name = "peer";
  readonly isReadOnly = true;
  readonly #hosts: readonly PeerHost[];
  readonly #patienceMs: number;
  #corruptRecords = 0;
  #readStoredBytes = 0;
  #lastId = 0;

  /** Connects in the background: a host that is away is away. */
  constructor({
    hosts,
    packer,
    log = silentLog,
    patienceMs = 750,
    stallMs = 5000,
    pingMs = 20_000,
    reconnectMs = 200,
  }: PeerTierOptions) {
    this.#patienceMs = patienceMs;
    const times = { stallMs, pingMs, reconnectMs };
    this.#hosts = hosts.map(
      (address) =>
        new PeerHost({ address, packer: address.compress === "lossless" ? packer : undefined, log, ...times }),
    );
  }

  async find(
    space: SpaceId,
    root: RootKey,
    keys: Iterable<ChunkKey>,
    signal: AbortSignal,
  ): Promise<readonly FoundRecord[]> {
    const text = new TakenKeys(keys);
    const faults: unknown[] = [];
    const settled = new AbortController();
    let best: { readonly host: number; readonly found: (readonly number[])[] } | undefined;
    const asks = this.#hosts.map(async (host, number) => {
      try {
        const found = await this.#findAt(host, { space, root, text });
        if (best === undefined || found.length > best.found.length) best = { host: number, found };
        return text.areAll(found.length) ? "all of it" : "some of it";
      } catch (error) {
        faults.push(error);
        return "away";
      }
    });
    await new Promise<void>((resolve) => {
      for (const ask of asks) void ask.then((had) => (had === "all of it" ? resolve() : undefined));
      void Promise.all(asks).then(() => resolve());
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve(), { once: true, signal: settled.signal });
    });
    settled.abort();
    if (best !== undefined) return best.found.map((payloadBytes) => ({ id: this.#newId(best!.host), payloadBytes }));
    throw faults[0] ?? new RepriseError("TIER_UNAVAILABLE", "no host answered in time");
  }

  async read(id: RecordId, key: ChunkKey, into: PartMemory, signal: AbortSignal): Promise<"read" | "gone"> {
    const host = this.#hosts[id % mostHosts];
    if (host === undefined) return "gone";
    const wanted = into.flatMap((view, part) => (view === undefined ? [] : [{ part, view }]));
    const fetched = await host.fetch(key, wanted, signal).catch((error: unknown) => {
      if (this.#hosts.some(({ isThere }) => isThere)) return { outcome: "gone" } as const; // the others can be asked
      throw error;
    });
    if (fetched.outcome === "gone") return "gone";
    this.#readStoredBytes += fetched.storedBytes;
    if (fetched.outcome === "corrupt") {
      this.#corruptRecords += 1;
      throw new RepriseError("RECORD_CORRUPT", `what ${host.name} sent of chunk ${key} does not match its checksum`);
    }
    return "read";
  }

  write(): Promise<"rejected"> {
    return Promise.resolve("rejected");
  }

  stats(): PeerTierStats {
    const hosts = this.#hosts.map((host) => [host.name, host.isThere ? "there" : "away"] as const);
    // What hosts have only they know.
    return {
      records: 0,
      usedBytes: 0,
      capacityBytes: 0,
      corruptRecords: this.#corruptRecords,
      readStoredBytes: this.#readStoredBytes,
      where: this.#hosts.map(({ name }) => name).join(", "),
      hosts: Object.fromEntries(hosts),
    };
  }

  [Symbol.asyncDispose](): Promise<void> {
    for (const host of this.#hosts) host.close();
    return Promise.resolve();
  }

  /** Payload lengths of the leading chunks that a host has. */
  async #findAt(
    host: PeerHost,
    { space, root, text }: { space: SpaceId; root: RootKey; text: TakenKeys },
  ): Promise<(readonly number[])[]> {
    const found: (readonly number[])[] = [];
    for (let most = firstKeys; ; most = maxKeys) {
      const asked = text.slice(found.length, found.length + most);
      if (asked.length === 0) return found;
      const more = await within(host.find(space, root, asked), this.#patienceMs);
      if (more === "late") {
        const late = new RepriseError(
          "TIER_UNAVAILABLE",
          `${host.name} did not say what it has within ${this.#patienceMs} ms`,
        );
        host.giveUp(late);
        throw late;
      }
      found.push(...more);
      if (more.length < asked.length) return found;
    }
  }

  /** The host is in the number: nothing has to be remembered between find and read. */
  #newId(host: number): RecordId {
    return ((this.#lastId += 1) * mostHosts + host) as RecordId;
  }
}

/** The keys of a text, each hashed when the first host is asked for it, and kept for the others. */
class TakenKeys {
  readonly #keys: ChunkKey[] = [];
  readonly #rest: Iterator<ChunkKey>;
  #isEnd = false;

  constructor(keys: Iterable<ChunkKey>) {
    this.#rest = keys[Symbol.iterator]();
  }

  slice(from: number, to: number): ChunkKey[] {
    while (!this.#isEnd && this.#keys.length < to) {
      const next = this.#rest.next();
      if (next.done === true) this.#isEnd = true;
      else this.#keys.push(next.value);
    }
    return this.#keys.slice(from, to);
  }

  /** So many are all of them. */
  areAll(count: number): boolean {
    return this.slice(count, count + 1).length === 0;
  }
}
