/**
 * SHA-256 over all bytes of a model, which is its identity in the cache.
 *
 * A digest of many gigabytes takes seconds, so it is computed once and remembered in `weights.json` in the data directory, by
 * what a changed file cannot keep: device, inode, size and the times of its last writing and last change of every part. An
 * image of a file system may repeat even those, with other weights. So each remembered digest has a sample of the content beside
 * it, which is read at every start: both ends and pages spread over each part, at most {@link sampleBytes}.
 */
import { createHash } from "node:crypto";
import type { Hash } from "node:crypto";
import { dirname, join } from "node:path";
import { RepriseError, describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { makePrivateDirectory } from "../../../private-directory.ts";
import { readPrivateFile, replacePrivateFile } from "../../../private-files.ts";
import type { ModelFiles, WeightsDigest } from "../model/model-files.ts";
import { pageBytes } from "../../../pages.ts";

export type ReadableModel = Pick<ModelFiles, "path" | "identity" | "partBytes" | "read">;

export interface DigestOptions {
  readonly dataDirectory: string;
  readonly signal: AbortSignal;
  readonly log: Log;
}

/** Digests remembered; the oldest go first. */
const maxRemembered = 100;
/** So many take less than 100 KiB unless they are of models in hundreds of parts. */
const maxFileBytes = 4 << 20;
const readBytes = 1 << 20;

/** What is read of all parts together at a start, besides the header: one page each of these many, and both ends. */
const samplePages = 256;
const endBytes = 64 << 10;
export const sampleBytes = samplePages * pageBytes + 2 * endBytes;

/** By identity. */
type Known = Map<string, { readonly digest: string; readonly sample: string }>;

/**
 * The digest of a model's open files.
 *
 * @throws RepriseError MODEL_INVALID when a file changes while it is read, the signal's reason, or Node's error when it cannot be read.
 */
export async function weightsDigest(files: ReadableModel, options: DigestOptions): Promise<WeightsDigest> {
  const { dataDirectory, log } = options;
  const { identity } = files;
  const file = join(dataDirectory, "weights.json");
  const sample = await sampleOf(files, options.signal);
  const known = readKnown(file, log);
  const remembered = known.get(identity);
  const digest = remembered?.sample === sample ? remembered.digest : await digestOf(files, options.signal);
  if (files.identity !== identity) {
    throw new RepriseError("MODEL_INVALID", `${files.path} changed while it was read`);
  }
  if (remembered?.digest !== digest || remembered.sample !== sample) {
    known.delete(identity); // the newest is the last
    known.set(identity, { digest, sample });
    await remember(file, known, log);
  }
  return { digest, identity };
}

async function digestOf(files: ReadableModel, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  for (const part of files.partBytes.keys()) await digestPart(files, part, hash, signal);
  return hash.digest("hex");
}

/** Reads a piece while the one before it is hashed. */
async function digestPart(files: ReadableModel, part: number, hash: Hash, signal: AbortSignal): Promise<void> {
  let [current, other] = [Buffer.allocUnsafe(readBytes), Buffer.allocUnsafe(readBytes)];
  let position = 0;
  let reading = files.read(part, current, position);
  for (;;) {
    const count = await reading;
    if (count === 0) return;
    signal.throwIfAborted();
    position += count;
    reading = files.read(part, other, position);
    hash.update(current.subarray(0, count));
    [current, other] = [other, current];
  }
}

/** Pages at even distances and both ends, of each part a share. */
async function sampleOf(files: ReadableModel, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  const sizes = files.partBytes;
  const parts = sizes.length;
  const pages = Math.max(1, Math.floor(samplePages / parts));
  const ends = Math.max(pageBytes, Math.floor(endBytes / parts));
  const piece = Buffer.allocUnsafe(Math.max(ends, pageBytes));
  for (const [part, size] of sizes.entries()) {
    const take = async (position: number, bytes: number) => {
      signal.throwIfAborted();
      const count = await files.read(part, piece.subarray(0, bytes), position);
      hash.update(`${position}:${count}\n`).update(piece.subarray(0, count));
    };
    await take(0, ends);
    for (let page = 1; page <= pages; page += 1) {
      await take(Math.floor((size * page) / (pages + 1) / pageBytes) * pageBytes, pageBytes);
    }
    await take(Math.max(0, size - ends), ends);
  }
  return hash.digest("hex");
}

/** Whatever is wrong with the file, the weights are digested again. One that others may have written is worth nothing. */
function readKnown(file: string, log: Log): Known {
  try {
    const bytes = readPrivateFile(file, maxFileBytes, { tighten: true });
    if (bytes === "absent") return new Map();
    if (!(bytes instanceof Uint8Array)) throw new Error(`it ${bytes.foreign}`);
    const value: unknown = JSON.parse(bytes.toString("utf8"));
    if (typeof value !== "object" || value === null) throw new Error("it holds no digests");
    return new Map(Object.entries(value as Record<string, unknown>).filter(isDigest));
  } catch (error) {
    log.warn(`${file} is not used, digesting the weights again: ${describe(error)}`);
    return new Map();
  }
}

function isDigest(entry: [string, unknown]): entry is [string, { digest: string; sample: string }] {
  const { digest, sample } = (entry[1] ?? {}) as Record<string, unknown>;
  return [digest, sample].every((value) => typeof value === "string" && /^[0-9a-f]{64}$/.test(value));
}

/** Written whole and renamed: a crash leaves the old file. Failing to remember costs a digest next time, no more. */
async function remember(file: string, known: Known, log: Log): Promise<void> {
  const entries = [...known].slice(-maxRemembered);
  try {
    await makePrivateDirectory(dirname(file), "the data directory");
    await replacePrivateFile(file, Buffer.from(`${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`));
  } catch (error) {
    log.warn(`the digest of the weights cannot be remembered in ${file}: ${describe(error)}`);
  }
}
