/**
 * A cache in this process's memory, for tests of the engine alone: no eviction, no tiers, no deadlines. `faults` makes it
 * slow, silent or wrong.
 */
import { lookupOf } from "../../src/session.ts";
import { commonTokens } from "../../src/identity/tokens.ts";
import type { Root } from "../../src/identity/keys.ts";
import type { Tokens } from "../../src/identity/tokens.ts";
import type {
  CacheSession,
  LeaseId,
  LoadedPart,
  Lookup,
  Reservation,
  ReservedPart,
  WrittenPart,
} from "../../src/session.ts";
import type { SpaceId } from "../../src/identity/space.ts";
import type { StoredKv } from "../../src/engines/llama/process/stored-kv.ts";

interface Entry {
  readonly salt: string;
  /** The text up to the end of the chunk. */
  readonly text: Tokens;
  readonly firstToken: number;
  readonly offset: number;
  bytes: number;
  visible: boolean;
}

export interface Faults {
  /** Verbs that never answer. */
  hang?: "lookup" | "load" | "reserve" | "commit";
  /** Verbs that reject. */
  fail?: "lookup" | "load" | "reserve" | "commit";
  /** Verbs that answer after 10 ms. */
  slow?: "reserve";
  /** How long lookups take, as those do for which a store is asked. */
  lookupMs?: number;
  /** No slots are given. */
  full?: boolean;
  /** What is stored from this position on comes from another text. */
  movedFrom?: number;
  /** Lookups do not say so. */
  movedUnsaid?: boolean;
}

export class FakeCache implements StoredKv {
  readonly faults: Faults = {};
  readonly entries: Entry[] = [];
  /** Leases given and not given back. */
  readonly leases = new Set<LeaseId>();
  readonly #memory: Uint8Array;
  readonly #writing = new Map<LeaseId, Entry>();
  #used = 0;
  #nextLease = 1;
  readonly chunkTokens: number;

  constructor(options: { chunkTokens: number; slotBytes: number; slots: number }) {
    this.chunkTokens = options.chunkTokens;
    this.slotBytes = options.slotBytes;
    this.#memory = new Uint8Array(options.slotBytes * options.slots);
  }

  readonly slotBytes: number;

  readonly pool = {
    slot: (offset: number, bytes: number): Uint8Array => this.#memory.subarray(offset, offset + bytes),
  };

  get session(): CacheSession {
    return {
      spaceId: "0".repeat(64) as SpaceId,
      chunkTokens: this.chunkTokens,
      pool: { path: "", bytes: this.#memory.length },
      lookup: (root, tokens) => this.#answer("lookup", () => this.#lookup(root, tokens)),
      load: (root, tokens, from) => this.#load(root, tokens, from),
      holds: (lease) => this.leases.has(lease),
      release: (leases) => leases.forEach((lease) => this.leases.delete(lease)),
      touch: (root, tokens) => Promise.resolve(this.#lookup(root, tokens).hitTokens),
      // Nothing is ever evicted here.
      prefetch: (root, tokens) => Promise.resolve(this.#lookup(root, tokens).hitTokens),
      pin: (root, tokens) => Promise.resolve(this.#lookup(root, tokens).hitTokens),
      reserve: (root, tokens) => this.#answer("reserve", () => this.#reserve(root, tokens)),
      commit: (parts) => this.#answer("commit", () => this.#commit(parts)),
      abandon: (leases) => leases.forEach((lease) => this.#abandon(lease)),
      close: () => Promise.resolve(),
    };
  }

  /** Bytes of the stored payloads, in the order they were stored. */
  payloads(): Uint8Array[] {
    return this.entries.map((entry) => this.pool.slot(entry.offset, entry.bytes));
  }

  async #answer<T>(verb: NonNullable<Faults["hang"]>, body: () => T): Promise<T> {
    if (this.faults.hang === verb) return new Promise(() => {});
    if (this.faults.fail === verb) throw new Error(`${verb} fails`);
    if (this.faults.slow === verb) await new Promise((resolve) => setTimeout(resolve, 10));
    if (verb === "lookup" && this.faults.lookupMs !== undefined)
      await new Promise((resolve) => setTimeout(resolve, this.faults.lookupMs));
    await Promise.resolve();
    return body();
  }

  #lookup(root: Root, tokens: Tokens): Lookup {
    const last = this.#chain(root, tokens).at(-1);
    const hitTokens = last === undefined ? 0 : last.firstToken + last.matchedTokens;
    const { movedFrom = hitTokens, movedUnsaid = false } = this.faults;
    const end = movedUnsaid ? hitTokens : Math.min(movedFrom, hitTokens);
    const segments = [
      { kind: "exact", source: 0, from: 0, to: end, tier: "memory" },
      { kind: "moved", source: 1000, from: end, to: hitTokens, tier: "memory" },
    ] as const;
    return lookupOf(
      segments.filter(({ from, to }) => to > from),
      hitTokens,
    );
  }

  async *#load(root: Root, tokens: Tokens, from: number): AsyncGenerator<readonly LoadedPart[]> {
    for (const { entry, firstToken, matchedTokens } of this.#chain(root, tokens)) {
      await this.#answer("load", () => undefined);
      if (firstToken + matchedTokens <= from) continue;
      const lease = this.#lease();
      const tokenCount = entry.text.length - firstToken;
      const part = {
        kind: firstToken < (this.faults.movedFrom ?? Infinity) ? "exact" : "moved",
        skip: 0,
        take: matchedTokens,
      } as const;
      yield [{ lease, group: 0, firstToken, tokenCount, ...part, target: firstToken, tier: "memory", slot: entry }];
    }
  }

  /** The stored chunks that begin `tokens`. */
  #chain(root: Root, tokens: Tokens): { entry: Entry; firstToken: number; matchedTokens: number }[] {
    const chain = [];
    for (let firstToken = 0; firstToken < tokens.length; firstToken += this.chunkTokens) {
      let best: { entry: Entry; matched: number } | undefined;
      for (const entry of this.entries) {
        if (entry.salt !== root.salt || entry.firstToken !== firstToken || !entry.visible) continue;
        const matched = commonTokens(entry.text, 0, tokens, 0) - firstToken;
        if (matched > (best?.matched ?? 0)) best = { entry, matched };
      }
      if (best === undefined) break;
      chain.push({ entry: best.entry, firstToken, matchedTokens: best.matched });
      if (best.matched < this.chunkTokens) break;
    }
    return chain;
  }

  #reserve(root: Root, tokens: Tokens): Reservation {
    const parts: ReservedPart[] = [];
    for (let firstToken = 0; firstToken < tokens.length; firstToken += this.chunkTokens) {
      const text = tokens.slice(0, firstToken + this.chunkTokens);
      const known = this.entries.some(
        (entry) =>
          entry.salt === root.salt &&
          entry.firstToken === firstToken &&
          entry.text.length >= text.length &&
          commonTokens(entry.text, 0, text, 0) === text.length,
      );
      if (known) continue;
      if (this.faults.full === true || this.#used + this.slotBytes > this.#memory.length) return { parts, full: true };
      const entry = { salt: root.salt, text, firstToken, offset: this.#used, bytes: 0, visible: false };
      this.#used += this.slotBytes;
      this.entries.push(entry);
      const lease = this.#lease();
      this.#writing.set(lease, entry);
      const slot = { offset: entry.offset, bytes: this.slotBytes };
      parts.push({ lease, group: 0, firstToken, tokenCount: text.length - firstToken, slot });
    }
    return { parts, full: false };
  }

  #commit(parts: readonly WrittenPart[]): void {
    for (const { lease, bytes } of parts) {
      const entry = this.#writing.get(lease)!; // a lease that was not given is a bug of the guest
      Object.assign(entry, { bytes, visible: true });
      this.#writing.delete(lease);
      this.leases.delete(lease);
    }
  }

  #abandon(lease: LeaseId): void {
    const entry = this.#writing.get(lease);
    if (entry === undefined) return;
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.#writing.delete(lease);
    this.leases.delete(lease);
  }

  #lease(): LeaseId {
    const lease = this.#nextLease++ as LeaseId;
    this.leases.add(lease);
    return lease;
  }
}
