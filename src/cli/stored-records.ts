/**
 * What the segments of a data directory hold, read without owning it: beside a cache that runs, or after one that died.
 * The one place where commands look into the disk tier's files.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { SpaceId } from "../cache/space.ts";
import type { RootKey } from "../cache/chunk.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import { nodeFiles } from "../tiers/disk/files.ts";
import { isReadable, scanSegment, segmentNumber } from "../tiers/disk/segment.ts";

export interface StoredSpace {
  readonly space: SpaceId;
  /** Tenants, salts and adapters are kept apart as roots. */
  readonly roots: number;
  readonly ranks: number;
  readonly chunks: number;
  readonly tokens: number;
  /** Bytes of KV, without headers and padding. */
  readonly payloadBytes: number;
  /** When the first and the last of the files that hold its records were last written: milliseconds since 1970. */
  readonly oldestMs: number;
  readonly newestMs: number;
}

export interface StoredRecords {
  readonly spaces: readonly StoredSpace[];
  /** Bytes of all files. */
  readonly fileBytes: number;
  readonly files: number;
  /** Runs of pages that should hold a record and hold none. */
  readonly damagedPlaces: number;
  /** Files of another format version. */
  readonly foreignFiles: number;
}

interface Tally {
  readonly figures: { -readonly [Field in keyof Omit<StoredSpace, "roots">]: StoredSpace[Field] };
  readonly roots: Set<RootKey>;
  readonly keys: Set<string>;
}

/**
 * Reads the headers of all records below `directory`. A record that was rewritten counts once; a file that goes while it
 * is read counts as far as it was read.
 *
 * @throws RepriseError BAD_CONFIG when the directory cannot be read.
 */
export async function readStoredRecords(directory: string): Promise<StoredRecords> {
  const bySpace = new Map<SpaceId, Tally>();
  const found = { fileBytes: 0, files: 0, damagedPlaces: 0, foreignFiles: 0 };
  for (const name of await namesIn(directory)) {
    if (segmentNumber(name) === undefined) continue;
    try {
      await readSegment(join(directory, name), bySpace, found);
    } catch (error) {
      if (codeOf(error) !== "ENOENT") throw error; // evicted since it was listed
    }
  }
  const spaces = [...bySpace.values()]
    .map(({ figures, roots }) => ({ ...figures, roots: roots.size }))
    .sort((a, b) => b.payloadBytes - a.payloadBytes);
  return { spaces, ...found };
}

async function readSegment(
  path: string,
  bySpace: Map<SpaceId, Tally>,
  found: { fileBytes: number; files: number; damagedPlaces: number; foreignFiles: number },
): Promise<void> {
  const { size, mtimeMs } = await stat(path);
  if (size === 0) return; // being begun
  const file = await nodeFiles.open(path);
  try {
    found.files += 1;
    found.fileBytes += size;
    if (!(await isReadable(file))) {
      found.foreignFiles += 1;
      return;
    }
    for await (const step of scanSegment(file, size)) {
      if (step.kind === "damage") found.damagedPlaces += 1;
      else count(bySpace, step.decoded.record, mtimeMs);
    }
  } finally {
    await file.close();
  }
}

function count(
  bySpace: Map<SpaceId, Tally>,
  record: { space: SpaceId; root: RootKey; key: string; tokens: Uint32Array; payloadBytes: readonly number[] },
  writtenMs: number,
): void {
  let tally = bySpace.get(record.space);
  if (tally === undefined) {
    tally = {
      figures: {
        space: record.space,
        ranks: record.payloadBytes.length,
        chunks: 0,
        tokens: 0,
        payloadBytes: 0,
        oldestMs: writtenMs,
        newestMs: writtenMs,
      },
      roots: new Set(),
      keys: new Set(),
    };
    bySpace.set(record.space, tally);
  }
  const { figures, roots, keys } = tally;
  figures.oldestMs = Math.min(figures.oldestMs, writtenMs);
  figures.newestMs = Math.max(figures.newestMs, writtenMs);
  if (keys.has(record.key)) return;
  keys.add(record.key);
  roots.add(record.root);
  figures.chunks += 1;
  figures.tokens += record.tokens.length;
  figures.payloadBytes += record.payloadBytes.reduce((sum, bytes) => sum + bytes, 0);
}

/** No such folder is an empty one: a cache without a disk tier has none. */
async function namesIn(directory: string): Promise<string[]> {
  try {
    return await nodeFiles.list(directory);
  } catch (error) {
    if (codeOf(error) === "ENOENT") return [];
    throw new RepriseError("BAD_CONFIG", `cannot read ${directory}: ${describe(error)}`, { cause: error });
  }
}
