/**
 * SHA-256 over all bytes of a model, which is its identity in the cache.
 *
 * A digest of many gigabytes takes seconds, so it is computed once and remembered by what a changed file cannot keep
 * (device, inode, size and time of change of every part) in `weights.json` in the data directory.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { RepriseError, codeOf, describe } from "../../errors.ts";
import type { Log } from "../../log.ts";

/** Digests remembered; the oldest go first. */
const maxRemembered = 100;
const readBytes = 1 << 20;

/**
 * The digest of the model at `path`, as lower-case hexadecimal.
 *
 * @throws RepriseError MODEL_INVALID when a file changes while it is read, CANCELLED, or Node's error when it cannot be read.
 */
export async function weightsDigest(
  path: string,
  options: { dataDirectory: string; signal: AbortSignal; log: Log },
): Promise<string> {
  const parts = modelParts(path);
  const identity = await identityOf(parts);
  const file = join(options.dataDirectory, "weights.json");
  const known = await readKnown(file, options.log);
  const remembered = known.get(identity);
  if (remembered !== undefined) return remembered;

  const hash = createHash("sha256");
  for (const part of parts) {
    for await (const piece of createReadStream(part, { highWaterMark: readBytes, signal: options.signal })) {
      hash.update(piece as Buffer);
    }
  }
  if ((await identityOf(parts)) !== identity) {
    throw new RepriseError(
      "MODEL_INVALID",
      `${path} changed while it was read; restart the server to serve the new one`,
    );
  }
  const digest = hash.digest("hex");
  known.set(identity, digest);
  await remember(file, known, options.log);
  return digest;
}

/** All files of a model that is split as `name-00001-of-00003.gguf`. */
export function modelParts(path: string): string[] {
  const match = /^(.*)-00001-of-(\d{5})\.gguf$/.exec(basename(path));
  if (match === null) return [path];
  const [, stem, count] = match;
  return Array.from({ length: Number(count) }, (_, index) =>
    join(dirname(path), `${stem}-${String(index + 1).padStart(5, "0")}-of-${count}.gguf`),
  );
}

async function identityOf(parts: readonly string[]): Promise<string> {
  const identities = await Promise.all(
    parts.map(async (part) => {
      const { dev, ino, size, mtimeNs } = await stat(part, { bigint: true });
      return `${dev}:${ino}:${size}:${mtimeNs}`;
    }),
  );
  return identities.join("+");
}

async function readKnown(file: string, log: Log): Promise<Map<string, string>> {
  try {
    const entries = Object.entries(JSON.parse(await readFile(file, "utf8")) as Record<string, unknown>);
    return new Map(entries.filter((entry): entry is [string, string] => /^[0-9a-f]{64}$/.test(String(entry[1]))));
  } catch (error) {
    if (codeOf(error) !== "ENOENT") log.warn(`${file} cannot be read, digesting the weights again: ${describe(error)}`);
    return new Map();
  }
}

/** Written whole and renamed: a crash leaves the old file. Failing to remember costs a digest next time, no more. */
async function remember(file: string, known: ReadonlyMap<string, string>, log: Log): Promise<void> {
  const entries = [...known].slice(-maxRemembered);
  try {
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    await writeFile(`${file}.new`, `${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`, { mode: 0o600 });
    await rename(`${file}.new`, file);
  } catch (error) {
    log.warn(`the digest of the weights cannot be remembered in ${file}: ${describe(error)}`);
  }
}
