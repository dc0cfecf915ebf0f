/**
 * What a GGUF file says of itself before its first list: `general.architecture` and `general.type`. Enough to tell models from
 * projectors and adapters without reading vocabularies of megabytes.
 *
 *     "GGUF" │ u32 version │ u64 tensors │ u64 entries │ entry …
 *     entry  =  u64 length, key │ u32 kind │ value           string = u64 length, bytes
 */
import type { FileHandle } from "node:fs/promises";

/** Writers put them first; a description before them may be long. */
const readBytes = 64 << 10;
const headerBytes = 24;
const stringKind = 8;
/** Bytes of a value by its kind: integers, a float and a bool, then 64 bits; strings and lists are not among them. */
const fixedBytes: readonly (number | undefined)[] = [1, 1, 2, 2, 4, 4, 4, 1, undefined, undefined, 8, 8, 8];

export interface GgufKind {
  readonly architecture: string;
  /** "model" where the file says nothing. */
  readonly type: string;
}

/** What llama.cpp calls its architectures. */
const plainWord = /^[\w.-]{1,64}$/;

/**
 * @param file open for reading
 * @returns undefined when it is no GGUF, or does not say its architecture there
 */
export async function ggufKind(file: FileHandle): Promise<GgufKind | undefined> {
  const { buffer, bytesRead } = await file.read(Buffer.alloc(readBytes), 0, readBytes, 0);
  const said = textsOf(buffer.subarray(0, bytesRead));
  const architecture = said.get("general.architecture");
  return architecture === undefined || !plainWord.test(architecture)
    ? undefined
    : { architecture, type: said.get("general.type") ?? "model" };
}

/** The texts among the first entries, up to a list or the end of what was read. */
function textsOf(bytes: Buffer): Map<string, string> {
  const texts = new Map<string, string>();
  if (bytes.length < headerBytes || bytes.toString("latin1", 0, 4) !== "GGUF") return texts;
  let at = headerBytes;
  const text = () => {
    const length = at + 8 <= bytes.length ? Number(bytes.readBigUInt64LE(at)) : Number.POSITIVE_INFINITY;
    if (at + 8 + length > bytes.length) return undefined;
    at += 8 + length;
    return bytes.toString("utf8", at - length, at);
  };
  for (let entries = Number(bytes.readBigUInt64LE(16)); entries > 0; entries -= 1) {
    const key = text();
    if (key === undefined || at + 4 > bytes.length) break;
    const kind = bytes.readUInt32LE(at);
    at += 4;
    if (kind === stringKind) {
      const value = text();
      if (value === undefined) break;
      texts.set(key, value);
    } else {
      const size = fixedBytes[kind];
      if (size === undefined) break;
      at += size;
    }
  }
  return texts;
}
