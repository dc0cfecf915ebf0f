/**
 * Stores runs: first the payloads under a name of their own, then the index that says where they are. A run that somebody else has
 * stored meanwhile is taken over instead: many hosts compute the same prompt in the same minute.
 *
 *     index of its last chunk there, young, with all of its chunks?  ── yes ──► theirs
 *     PUT d/RANDOM        payloads
 *     PUT i/LAST CHUNK    only if absent, where the store can: else theirs after all, or written over where it lacks some of ours
 *     PUT i/PARENT        when the run begins where no index is: other texts may go on from there, too
 */
import { assert } from "../../errors.ts";
import type { ChunkKey } from "../../identity/keys.ts";
import type { Run, StoredRun } from "./gathering.ts";
import { encodeIndex, maxIndexBytes, type IndexEntry } from "./index-object.ts";
import type { Indexes } from "./indexes.ts";
import type { LocatedChunk } from "./located-chunks.ts";
import { isRunEnd, maxRunChunks } from "./run-ends.ts";
import type { S3Client } from "./s3-client.ts";

export interface RunWriterOptions {
  readonly client: S3Client;
  readonly indexes: Indexes;
}

export class RunWriter {
  readonly #options: RunWriterOptions;

  constructor(options: RunWriterOptions) {
    this.#options = options;
  }

  /** @throws RepriseError TIER_UNAVAILABLE */
  async store(run: Run): Promise<StoredRun> {
    const { client, indexes } = this.#options;
    const { signal, chunks } = run;
    const last = chunks.at(-1)!.record.key; // runs have chunks
    const before = await this.#before(run);
    if (before === "rejected") return "rejected";
    const theirs = await this.#theirs(run, signal);
    if (theirs !== undefined) return { before, chunks: theirs };

    const prepared = await Promise.all(chunks.map((each) => each.prepared));
    const body = prepared.flatMap((each) => each.body);
    if (run.bytes > 0 && (await client.put(`d/${run.data}`, body, { ifAbsent: false }, signal)) === "refused")
      return "rejected";
    const own = prepared.map(({ head }, i) => ({ data: run.data, offset: chunks[i]!.offset, head })); // one for each
    const outcome = await this.#putIndex(last, [...before, ...own], !indexes.isStale(last), signal);
    if (outcome === "refused") return "rejected";
    if (outcome === "exists") {
      const others = await this.#theirs(run, signal);
      if (others !== undefined) {
        if (run.bytes > 0) await client.remove(`d/${run.data}`, undefined, signal);
        return { before, chunks: others };
      }
      if ((await this.#putIndex(last, [...before, ...own], false, signal)) === "refused") return "rejected";
    }
    const stored = own.map((entry) => {
      const located = indexes.locate(entry);
      assert(located !== undefined, "a head that was written can be read");
      return located;
    });
    for (const each of stored) indexes.wasWritten(each);
    indexes.hasOwn(last);
    await this.#markBranch(run, before);
    return { before, chunks: stored };
  }

  /** The chunks of the same run of the text that come before, as far as they are known. */
  async #before({ parent, after, signal }: Run): Promise<readonly LocatedChunk[] | "rejected"> {
    const { indexes } = this.#options;
    if (isRunEnd(parent)) return [];
    if (after === undefined) return indexes.upTo(parent, signal); // of a root it finds nothing
    const stored = await after.run;
    return stored === "rejected" ? "rejected" : [...stored.before, ...stored.chunks.slice(0, after.chunks)];
  }

  /** All of the run's chunks as another host has stored them, with the same parts. */
  async #theirs({ chunks }: Run, signal: AbortSignal): Promise<readonly LocatedChunk[] | undefined> {
    const { indexes } = this.#options;
    const last = chunks.at(-1)!.record.key; // runs have chunks
    if (chunks.some(({ record }) => indexes.isStale(record.key))) return undefined;
    const found = new Map(
      (await indexes.read(last, signal, "to last a while")).map((each) => [each.decoded.record.key, each]),
    );
    const theirs = chunks.flatMap(({ record }) => {
      const each = found.get(record.key);
      const isSame = each?.decoded.record.payloadBytes.join() === record.payloadBytes.join();
      return each !== undefined && isSame ? [each] : [];
    });
    return theirs.length === chunks.length ? theirs : undefined;
  }

  /** Where a text branches off inside of what another has stored, the next one may find that by the branch. */
  async #markBranch({ parent, signal }: Run, before: readonly LocatedChunk[]): Promise<void> {
    const { indexes } = this.#options;
    if (before.length === 0 || indexes.isKnown(parent as ChunkKey)) return; // a root has nothing before
    await this.#putIndex(parent as ChunkKey, before, true, signal);
    indexes.hasOwn(parent as ChunkKey);
  }

  #putIndex(
    key: ChunkKey,
    entries: readonly IndexEntry[],
    ifAbsent: boolean,
    signal: AbortSignal,
  ): Promise<"put" | "exists" | "refused"> {
    const { client, indexes } = this.#options;
    let told = entries.slice(-maxRunChunks);
    let bytes = encodeIndex(told);
    while (bytes.length > maxIndexBytes) bytes = encodeIndex((told = told.slice(1)));
    return client.put(indexes.nameOf(key), [bytes], { ifAbsent }, signal);
  }
}
