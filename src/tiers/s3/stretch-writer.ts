/**
 * Stores stretches of texts: first the payloads under a name of their own, then the indexes that say where they are, one for each run
 * that ends in the stretch (run-ends.ts) and one for its end. What somebody else has stored meanwhile is taken over instead: many hosts
 * compute the same prompt in the same minute.
 *
 *     indexes of its ends there, young, with all of its chunks?  ── yes ──► theirs
 *     PUT d/RANDOM        payloads
 *     PUT i/END …         only if absent, where the store can: else theirs after all, or written over where it lacks some of ours
 *     PUT i/PARENT        when it begins where no index is: other texts may go on from there, too
 */
import { assert } from "../../errors.ts";
import type { ChunkKey } from "../../identity/keys.ts";
import { allEnded } from "../shared/all-ended.ts";
import type { Stretch, StoredStretch } from "./gathering.ts";
import { encodeIndex, maxIndexBytes, type IndexEntry } from "./index-object.ts";
import type { Indexes } from "./indexes.ts";
import type { LocatedChunk } from "./located-chunks.ts";
import { isRunEnd, maxRunChunks } from "./run-ends.ts";
import type { S3Client } from "./s3-client.ts";

export interface StretchWriterOptions {
  readonly client: S3Client;
  readonly indexes: Indexes;
}

/** Chunks of a stretch that one index tells of, as numbers: from the first that follows an end, to the end. */
interface Piece {
  readonly from: number;
  readonly to: number;
}

export class StretchWriter {
  readonly #options: StretchWriterOptions;

  constructor(options: StretchWriterOptions) {
    this.#options = options;
  }

  /** @throws RepriseError TIER_UNAVAILABLE */
  async store(stretch: Stretch): Promise<StoredStretch> {
    const { client, indexes } = this.#options;
    const { signal, chunks, data, bytes } = stretch;
    const before = await this.#before(stretch);
    if (before === "rejected") return "rejected";
    const pieces = piecesOf(stretch);
    const theirs = await allEnded(pieces.map((piece) => this.#theirs(stretch, piece)));
    const adopted = theirs.flatMap((piece) => piece ?? []);
    if (adopted.length === chunks.length) return { before, chunks: adopted };

    const prepared = await Promise.all(chunks.map((each) => each.prepared));
    const body = prepared.flatMap((each) => each.payloads).filter(({ length }) => length > 0);
    if (bytes > 0 && (await client.put(`d/${data}`, body, { ifAbsent: false }, signal)) === "refused")
      return "rejected";
    let offset = 0;
    const own = prepared.map(({ head, storedBytes }) => {
      const located = indexes.locate({ data, offset, head });
      offset += storedBytes;
      assert(located !== undefined, "a head that was written can be read");
      return located;
    });
    const written = await allEnded(
      pieces.map((piece, i) => this.#writeIndex(stretch, { piece, isFirst: i === 0, before, own })),
    );
    if (written.includes("refused")) return "rejected";
    const stored = written.flatMap((piece) => (piece === "refused" ? [] : piece));
    if (bytes > 0 && stored.every((each) => each.data !== data)) await client.remove(`d/${data}`, undefined, signal);
    for (const each of stored) indexes.wasWritten(each);
    await this.#markBranch(stretch, before);
    return { before, chunks: stored };
  }

  /** The chunks of the same run of the text that come before, as far as they are known. */
  async #before({ parent, after, signal }: Stretch): Promise<readonly LocatedChunk[] | "rejected"> {
    const { indexes } = this.#options;
    if (isRunEnd(parent)) return [];
    if (after === undefined) return indexes.upTo(parent, signal); // of a root it finds nothing
    const stored = await after.stretch;
    if (stored === "rejected") return "rejected";
    const all = [...stored.before, ...stored.chunks.slice(0, after.chunks)];
    return all.slice(all.findLastIndex(({ decoded }) => isRunEnd(decoded.record.key)) + 1);
  }

  /** A piece as another host has stored it, with the same parts. */
  async #theirs({ chunks, signal }: Stretch, { from, to }: Piece): Promise<readonly LocatedChunk[] | undefined> {
    const { indexes } = this.#options;
    const ours = chunks.slice(from, to);
    if (ours.some(({ record }) => indexes.isStale(record.key))) return undefined;
    const told = await indexes.read(chunks[to - 1]!.record.key, signal, { age: "to last a while" }); // pieces have chunks
    const found = new Map(told.map((each) => [each.decoded.record.key, each]));
    const theirs = ours.flatMap(({ record }) => {
      const each = found.get(record.key);
      const isSame = each?.decoded.record.payloadBytes.join() === record.payloadBytes.join();
      return each !== undefined && isSame ? [each] : [];
    });
    return theirs.length === ours.length ? theirs : undefined;
  }

  /** @returns where the piece's chunks are found now */
  async #writeIndex(
    stretch: Stretch,
    { piece, isFirst, before, own }: { piece: Piece; isFirst: boolean; before: readonly LocatedChunk[]; own: readonly LocatedChunk[] }, // prettier-ignore
  ): Promise<readonly LocatedChunk[] | "refused"> {
    const { indexes } = this.#options;
    const ours = own.slice(piece.from, piece.to);
    const key = ours.at(-1)!.decoded.record.key; // pieces have chunks
    const entries = isFirst ? [...before, ...ours] : ours;
    let outcome = await this.#put(key, entries, { ifAbsent: !indexes.isStale(key) }, stretch.signal);
    if (outcome === "exists") {
      const theirs = await this.#theirs(stretch, piece);
      if (theirs !== undefined) return theirs;
      outcome = await this.#put(key, entries, { ifAbsent: false }, stretch.signal);
    }
    if (outcome === "refused") return "refused";
    indexes.hasOwn(key);
    return ours;
  }

  /** Where a text branches off inside of what another has stored, the next one may find that by the branch. */
  async #markBranch({ parent, signal }: Stretch, before: readonly LocatedChunk[]): Promise<void> {
    const { indexes } = this.#options;
    if (before.length === 0 || indexes.isKnown(parent as ChunkKey)) return; // a root has nothing before
    await this.#put(parent as ChunkKey, before, { ifAbsent: true }, signal);
    indexes.hasOwn(parent as ChunkKey);
  }

  #put(
    key: ChunkKey,
    entries: readonly IndexEntry[],
    { ifAbsent }: { ifAbsent: boolean },
    signal: AbortSignal,
  ): Promise<"put" | "exists" | "refused"> {
    const { client, indexes } = this.#options;
    let told = entries.slice(-maxRunChunks);
    let bytes = encodeIndex(told);
    while (bytes.length > maxIndexBytes) bytes = encodeIndex((told = told.slice(1)));
    return client.put(indexes.nameOf(key), [bytes], { ifAbsent }, signal);
  }
}

function piecesOf({ chunks }: Stretch): Piece[] {
  const pieces: Piece[] = [];
  for (const [i, { record }] of chunks.entries())
    if (isRunEnd(record.key) || i === chunks.length - 1) pieces.push({ from: pieces.at(-1)?.to ?? 0, to: i + 1 });
  return pieces;
}
