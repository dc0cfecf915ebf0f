/**
 * Gathers chunks that come one after the other into runs, each of which becomes one object.
 *
 *     write ──► run that ends with the chunk's parent, or a new one ──► stored when
 *
 *                 its chunk ends a run (run-ends.ts)        readers ask there
 *                 it has some MiB                           larger objects are no faster to read
 *                 nothing came for two seconds              the text ends here for now
 *                 a tail follows                            texts that go on are not asked for it, but for what it follows
 *
 * Nothing is copied: payloads stay in their slots until the run is stored, and a write ends only then. A chunk whose write is given
 * up takes its run with it.
 */
import { randomBytes } from "node:crypto";
import { setMaxListeners } from "node:events";
import { RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { ChunkRecord } from "../../tier.ts";
import type { TierKey } from "../shared/tier-keys.ts";
import type { LocatedChunk } from "./located-chunks.ts";
import { bytesOf, outgoing, type Outgoing } from "./outgoing.ts";
import { isRunEnd } from "./run-ends.ts";

/** Chunks that are stored together. */
export interface Run {
  /** Of its data object. */
  readonly data: string;
  /** What the first of its chunks follows. */
  readonly parent: ChunkKey | RootKey;
  readonly chunks: readonly Outgoing[];
  readonly bytes: number;
  /** Fires when a write of one of its chunks is given up. */
  readonly signal: AbortSignal;
  /** The run, on its way as well, that has the parent: what refers to it must come after it. */
  readonly after: { readonly run: Promise<StoredRun>; readonly chunks: number } | undefined;
}

/** Its chunks as they are found now, with those of the text's run before them; or nothing was stored. */
export type StoredRun =
  | { readonly before: readonly LocatedChunk[]; readonly chunks: readonly LocatedChunk[] }
  | "rejected";

export interface GatheringOptions {
  /** Seals what is written. */
  readonly key: TierKey | undefined;
  /** Stores a run. When it has ended, however it ends, nothing touches the payloads any more. */
  readonly store: (run: Run) => Promise<StoredRun>;
  /** Bytes of a run that is not waited for any longer. */
  readonly targetBytes: number;
  /** How long a run waits for its next chunk. */
  readonly idleMs: number;
}

interface OpenRun extends Run {
  readonly chunks: Outgoing[];
  bytes: number;
  readonly stored: Promise<StoredRun>;
  readonly begin: () => void;
  readonly abort: () => void;
  timer: NodeJS.Timeout | undefined;
}

export class Gathering {
  readonly #options: GatheringOptions;
  /** Runs that may grow, by their last chunk. */
  readonly #open = new Map<ChunkKey | RootKey, OpenRun>();
  /** Runs that are open or being stored, by every chunk of them. */
  readonly #underWay = new Map<ChunkKey | RootKey, { run: OpenRun; chunks: number }>();

  constructor(options: GatheringOptions) {
    this.#options = options;
  }

  /** @throws RepriseError TIER_UNAVAILABLE */
  async add(
    record: ChunkRecord,
    payloads: readonly Uint8Array[],
    signal: AbortSignal,
  ): Promise<LocatedChunk | "rejected"> {
    const run = this.#runFor(record);
    const number = run.chunks.length;
    run.chunks.push(outgoing(record, payloads, { offset: run.bytes, key: this.#options.key }));
    run.bytes += bytesOf(record);
    this.#open.delete(record.parent);
    this.#open.set(record.key, run);
    this.#underWay.set(record.key, { run, chunks: number + 1 });
    setMaxListeners(0, signal); // whoever ends gives up all writes by one
    signal.addEventListener("abort", run.abort);
    if (signal.aborted) run.abort();
    else this.#wait(run, record.key);
    try {
      const stored = await run.stored;
      return stored === "rejected" ? "rejected" : stored.chunks[number]!; // one for each
    } finally {
      signal.removeEventListener("abort", run.abort);
    }
  }

  /** Stores what waits, now. */
  flush(): void {
    for (const run of this.#open.values()) this.#close(run);
  }

  #wait(run: OpenRun, last: ChunkKey): void {
    const { targetBytes, idleMs } = this.#options;
    clearTimeout(run.timer);
    if (isRunEnd(last) || run.bytes >= targetBytes) this.#close(run);
    else run.timer = setTimeout(() => this.#close(run), idleMs);
  }

  #runFor({ parent, tokens }: ChunkRecord): OpenRun {
    const run = this.#open.get(parent);
    if (run === undefined) return this.#newRun(parent);
    if (tokens.length === run.chunks.at(-1)!.record.tokens.length) return run; // open runs have chunks
    this.#close(run); // it is a tail
    return this.#newRun(parent);
  }

  #newRun(parent: ChunkKey | RootKey): OpenRun {
    const before = isRunEnd(parent) ? undefined : this.#underWay.get(parent);
    const giveUp = new AbortController();
    let begin = () => {};
    const closed = new Promise<void>((resolve) => (begin = resolve));
    const run: OpenRun = {
      data: randomBytes(16).toString("hex"),
      parent,
      chunks: [],
      bytes: 0,
      signal: giveUp.signal,
      after: before === undefined ? undefined : { run: before.run.stored, chunks: before.chunks },
      stored: closed.then(() => this.#store(run)),
      begin,
      abort: () => {
        giveUp.abort();
        this.#close(run);
      },
      timer: undefined,
    };
    run.stored.catch(() => {}); // every chunk of it hears of that
    return run;
  }

  #close(run: OpenRun): void {
    clearTimeout(run.timer);
    const last = run.chunks.at(-1)!.record.key; // whoever made the run has put one in
    if (this.#open.get(last) === run) this.#open.delete(last);
    run.begin();
  }

  async #store(run: OpenRun): Promise<StoredRun> {
    try {
      if (run.signal.aborted) throw new RepriseError("TIER_UNAVAILABLE", "a write to S3 was given up");
      return await this.#options.store(run);
    } finally {
      await Promise.allSettled(run.chunks.map(({ prepared }) => prepared)); // they read the slots
      for (const { record } of run.chunks)
        if (this.#underWay.get(record.key)?.run === run) this.#underWay.delete(record.key);
    }
  }
}
