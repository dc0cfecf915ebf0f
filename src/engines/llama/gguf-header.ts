/**
 * A look at a model file before native code sees it: does it exist, and does it begin as a GGUF does?
 *
 *     "GGUF" │ u32 version │ u64 tensors │ u64 metadata entries │ …
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { RepriseError, codeOf, describe } from "../../errors.ts";

export interface ModelFile {
  readonly path: string;
  readonly bytes: number;
  /** Unix time in seconds of the last change. */
  readonly changed: number;
}

const headerBytes = 24;
/** The smallest things a tensor and an entry can be; counts that need more than the file has are damage. */
const smallestTensorBytes = 32;
const smallestEntryBytes = 13;

/** @throws RepriseError MODEL_NOT_FOUND or MODEL_INVALID. */
export function checkModelFile(path: string): ModelFile {
  const header = Buffer.alloc(headerBytes);
  const file = openModel(path);
  try {
    const stat = fstatSync(file);
    if (!stat.isFile())
      throw new RepriseError("MODEL_NOT_FOUND", `${path} is not a file; give the path of a .gguf file`);
    const read = readSync(file, header, 0, headerBytes, 0);
    const fault = read < headerBytes ? "is too short" : faultOf(header, stat.size);
    if (fault !== undefined) {
      throw new RepriseError("MODEL_INVALID", `${path} is not a usable GGUF file: it ${fault}`);
    }
    return { path, bytes: stat.size, changed: Math.floor(stat.mtimeMs / 1000) };
  } finally {
    closeSync(file);
  }
}

function openModel(path: string): number {
  try {
    return openSync(path, "r");
  } catch (error) {
    const why = codeOf(error) === "ENOENT" ? "there is no such file" : describe(error);
    throw new RepriseError("MODEL_NOT_FOUND", `Cannot read the model ${path}: ${why}`, { cause: error });
  }
}

function faultOf(header: Buffer, fileBytes: number): string | undefined {
  if (header.toString("latin1", 0, 4) !== "GGUF") return "does not begin with GGUF";
  const version = header.readUInt32LE(4);
  if (version !== 2 && version !== 3) return `has version ${version}; versions 2 and 3 can be read`;
  const tensors = Number(header.readBigUInt64LE(8));
  const entries = Number(header.readBigUInt64LE(16));
  if (tensors === 0 || entries === 0) return "holds no model";
  if (tensors * smallestTensorBytes + entries * smallestEntryBytes > fileBytes) return "is cut short or damaged";
  return undefined;
}
