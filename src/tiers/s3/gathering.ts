/**
 * Gathers chunks that come one after the other into stretches of a text, the payloads of each of which become one object.
 *
 *     write ──► stretch that ends with the chunk's parent, or a new one ──► stored when
 *
 *                 it has some MiB                           larger objects are no faster to read
 *                 nothing came for two seconds              the text ends here for now
 *                 it began some seconds ago                 others wait for it, and so do the pool's slots
 *                 a tail follows                            texts that go on are not asked for it, but for what it follows
 *
 * Nothing is copied that is neither packed nor sealed: payloads stay in their slots until the stretch is stored, and a write ends only then. A chunk whose write is given
 * up takes its stretch with it.
 */
import { randomBytes } from "node:crypto";
import { setMaxListeners } from "node:events";
import { RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { ChunkRecord } from "../../tier.ts";
import type { LocatedChunk } from "./located-chunks.ts";
import { bytesOf, outgoing, type Outgoing, type OutgoingOptions } from "./outgoing.ts";
import { isRunEnd } from "./run-ends.ts";

/** Chunks that are stored together. */
export interface Stretch {
  /** Of its data object. */
  readonly data: string;
  /** What the first of its chunks follows. */
  readonly parent: ChunkKey | RootKey;
  readonly chunks: readonly Outgoing[];
  readonly bytes: number;
  /** Fires when a write of one of its chunks is given up. */
  readonly signal: AbortSignal;
  /** The stretch, on its way as well, that has the parent: what refers to it must come after it. */
  readonly after: { readonly stretch: Promise<StoredStretch>; readonly chunks: number } | undefined;
}

/** Its chunks as they are found now, with those of the text's run before them; or nothing was stored. */
export type StoredStretch =
  | { readonly before: readonly LocatedChunk[]; readonly chunks: readonly LocatedChunk[] }
  | "rejected";

export interface GatheringOptions extends OutgoingOptions {
  /** Stores a stretch. When it has ended, however it ends, nothing touches the payloads any more. */
  readonly store: (stretch: Stretch) => Promise<StoredStretch>;
  /** Bytes of a stretch that is not waited for any longer. */
  readonly targetBytes: number;
  /** How long one waits for its next chunk. */
  readonly idleMs: number;
}

interface OpenStretch extends Stretch {
  readonly chunks: Outgoing[];
  bytes: number;
  readonly began: number;
  readonly stored: Promise<StoredStretch>;
  readonly begin: () => void;
  readonly abort: () => void;
  timer: NodeJS.Timeout | undefined;
}

/** Since the first chunk: a write may take half a minute in all. */
const mostMs = 5000;
const mostChunks = 512;

export class Gathering {
  readonly #options: GatheringOptions;
  /** Stretches that may grow, by their last chunk. */
  readonly #open = new Map<ChunkKey | RootKey, OpenStretch>();
  /** Stretches that are open or being stored, by every chunk of them. */
  readonly #underWay = new Map<ChunkKey | RootKey, { stretch: OpenStretch; chunks: number }>();

  constructor(options: GatheringOptions) {
    this.#options = options;
  }

  /** @throws RepriseError TIER_UNAVAILABLE */
  async add(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<LocatedChunk | "rejected"> {
    const stretch = this.#stretchFor(record);
    const number = stretch.chunks.length;
    stretch.chunks.push(outgoing(record, payloads, this.#options));
    stretch.bytes += bytesOf(record);
    this.#open.delete(record.parent);
    this.#open.set(record.key, stretch);
    this.#underWay.set(record.key, { stretch, chunks: number + 1 });
    setMaxListeners(0, signal); // whoever ends gives up all writes by one
    signal.addEventListener("abort", stretch.abort);
    if (signal.aborted) stretch.abort();
    else this.#wait(stretch);
    try {
      const stored = await stretch.stored;
      return stored === "rejected" ? "rejected" : stored.chunks[number]!; // one for each
    } finally {
      signal.removeEventListener("abort", stretch.abort);
    }
  }

  /** Stores what waits, now. */
  flush(): void {
    for (const stretch of this.#open.values()) this.#close(stretch);
  }

  #wait(stretch: OpenStretch): void {
    const { targetBytes, idleMs } = this.#options;
    clearTimeout(stretch.timer);
    if (stretch.bytes >= targetBytes || stretch.chunks.length >= mostChunks) return this.#close(stretch);
    const leftMs = stretch.began + mostMs - performance.now();
    stretch.timer = setTimeout(() => this.#close(stretch), Math.max(0, Math.min(idleMs, leftMs)));
  }

  #stretchFor({ parent, tokens }: ChunkRecord): OpenStretch {
    const stretch = this.#open.get(parent);
    if (stretch === undefined) return this.#newStretch(parent);
    if (tokens.length === stretch.chunks.at(-1)!.record.tokens.length) return stretch; // open stretches have chunks
    this.#close(stretch); // it is a tail
    return this.#newStretch(parent);
  }

  #newStretch(parent: ChunkKey | RootKey): OpenStretch {
    const before = isRunEnd(parent) ? undefined : this.#underWay.get(parent);
    const giveUp = new AbortController();
    let begin = () => {};
    const closed = new Promise<void>((resolve) => (begin = resolve));
    const stretch: OpenStretch = {
      data: randomBytes(16).toString("hex"),
      parent,
      chunks: [],
      bytes: 0,
      began: performance.now(),
      signal: giveUp.signal,
      after: before === undefined ? undefined : { stretch: before.stretch.stored, chunks: before.chunks },
      stored: closed.then(() => this.#store(stretch)),
      begin,
      abort: () => {
        giveUp.abort();
        this.#close(stretch);
      },
      timer: undefined,
    };
    stretch.stored.catch(() => {}); // every chunk of it hears of that
    return stretch;
  }

  #close(stretch: OpenStretch): void {
    clearTimeout(stretch.timer);
    const last = stretch.chunks.at(-1)!.record.key; // whoever made the stretch has put one in
    if (this.#open.get(last) === stretch) this.#open.delete(last);
    stretch.begin();
  }

  async #store(stretch: OpenStretch): Promise<StoredStretch> {
    try {
      if (stretch.signal.aborted) throw new RepriseError("TIER_UNAVAILABLE", "a write to S3 was given up");
      return await this.#options.store(stretch);
    } finally {
      await Promise.allSettled(stretch.chunks.map(({ prepared }) => prepared)); // they read the slots
      for (const { record } of stretch.chunks)
        if (this.#underWay.get(record.key)?.stretch === stretch) this.#underWay.delete(record.key);
    }
  }
}
