/**
 * The index objects as this host sees them: which it reads, what it has learned from them, and what it has found wanting.
 *
 *     age     0 ─────────── ttl / 2 ─────────── ttl
 *             used          used, touched       as good as gone: a collector may take it
 */
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import { decodeHead } from "../shared/head.ts";
import type { TierKey } from "../shared/tier-keys.ts";
import { decodeIndex, maxIndexBytes, type IndexEntry } from "./index-object.ts";
import { LocatedChunks, type LocatedChunk } from "./located-chunks.ts";
import { isRunEnd, maxRunChunks } from "./run-ends.ts";
import type { S3Client } from "./s3-client.ts";
import type { Touches } from "./touches.ts";

export interface IndexesOptions {
  readonly client: S3Client;
  readonly keys: readonly TierKey[];
  readonly touches: Touches;
  /** Whether what is packed is ours to read. */
  readonly unpacks: boolean;
}

const rememberedKeys = 16_384;

export class Indexes {
  readonly #options: IndexesOptions;
  readonly located = new LocatedChunks();
  /** Chunks that have an index of their own. */
  readonly #ends = new Set<ChunkKey>();
  /** Chunks whose payloads were not where an index said. */
  readonly #stale = new Set<ChunkKey>();
  corruptRecords = 0;

  constructor(options: IndexesOptions) {
    this.#options = options;
  }

  /** By the key that seals now. */
  nameOf(key: ChunkKey): string {
    return nameBy(this.#options.keys[0], key);
  }

  /**
   * What the index of that name tells of chunks; nothing when there is none that is ours to read. Names of older keys are tried where it
   * lacks.
   *
   * @throws RepriseError TIER_UNAVAILABLE
   */
  async read(
    key: ChunkKey,
    signal: AbortSignal,
    { mostBytes = maxIndexBytes, age = "any" }: { mostBytes?: number; age?: "any" | "to last a while" } = {},
  ): Promise<LocatedChunk[]> {
    const { client, keys, touches } = this.#options;
    for (const tierKey of keys.length === 0 ? [undefined] : keys) {
      const name = nameBy(tierKey, key);
      const object = await client.get(name, mostBytes, signal);
      if (object === undefined || touches.isDead(object.ageMs)) continue;
      if (age === "to last a while" && touches.isOld(object.ageMs)) continue;
      touches.used(name, object.ageMs);
      const entries = decodeIndex(object.bytes);
      if (entries === undefined) {
        this.corruptRecords += 1;
        continue;
      }
      note(this.#ends, key);
      return entries.flatMap((entry) => this.locate(entry) ?? []);
    }
    return [];
  }

  /** Undefined: it is sealed with a key that we do not have, packed though we cannot unpack, or damaged. */
  locate(entry: IndexEntry): LocatedChunk | undefined {
    const decoded = decodeHead(entry.head, this.#options);
    if (decoded === "damaged") this.corruptRecords += 1;
    if (typeof decoded !== "object") return undefined;
    return { ...entry, head: Buffer.from(entry.head), decoded }; // a copy: it is remembered without what came with it
  }

  /** It was written anew. */
  wasWritten(chunk: LocatedChunk): void {
    this.#stale.delete(chunk.decoded.record.key);
    this.located.note(chunk);
  }

  /** The chunks of a text's run up to one that does not end it, as far as they are known here or told by an index of its own. */
  async upTo(key: ChunkKey | RootKey, signal: AbortSignal): Promise<readonly LocatedChunk[]> {
    const known: LocatedChunk[] = [];
    for (let at = key; known.length < maxRunChunks && !isRunEnd(at);) {
      const chunk = this.located.byKey(at as ChunkKey); // of a root it has none
      if (chunk === undefined) break;
      known.unshift(chunk);
      at = chunk.decoded.record.parent;
    }
    return known.length > 0 ? known : this.read(key as ChunkKey, signal);
  }

  hasOwn(key: ChunkKey): void {
    note(this.#ends, key);
  }

  /** It has an index of its own, or a reader asks for it in vain anyway. */
  isKnown(key: ChunkKey): boolean {
    return this.#ends.has(key) || isRunEnd(key);
  }

  /** Its payloads are not where the indexes say: what they tell of it is not believed until it is written anew. */
  noteStale(key: ChunkKey): void {
    note(this.#stale, key);
    this.located.forget(key);
  }

  isStale(key: ChunkKey): boolean {
    return this.#stale.has(key);
  }
}

function nameBy(tierKey: TierKey | undefined, key: ChunkKey): string {
  return `i/${tierKey?.nameOf(key) ?? key}`;
}

function note(keys: Set<ChunkKey>, key: ChunkKey): void {
  keys.delete(key);
  keys.add(key);
  for (const oldest of keys) {
    if (keys.size <= rememberedKeys) return;
    keys.delete(oldest);
  }
}
