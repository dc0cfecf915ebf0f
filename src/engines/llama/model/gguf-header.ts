/**
 * A look at the first bytes of a model before native code sees it: do they begin as a GGUF does?
 *
 *     "GGUF" │ u32 version │ u64 tensors │ u64 metadata entries │ …
 */

export const headerBytes = 24;
/** The smallest things a tensor and an entry can be; counts that need more than the file has are damage. */
const smallestTensorBytes = 32;
const smallestEntryBytes = 13;

/** What is wrong with a file of `fileBytes` bytes that begins with `header`, to be read after "it"; undefined = nothing. */
export function ggufFault(header: Buffer, fileBytes: number): string | undefined {
  if (header.length < headerBytes) return "is too short";
  if (header.toString("latin1", 0, 4) !== "GGUF") return "does not begin with GGUF";
  const version = header.readUInt32LE(4);
  if (version !== 2 && version !== 3) return `has version ${version}; versions 2 and 3 can be read`;
  const tensors = Number(header.readBigUInt64LE(8));
  const entries = Number(header.readBigUInt64LE(16));
  if (tensors === 0 || entries === 0) return "holds no model";
  if (tensors * smallestTensorBytes + entries * smallestEntryBytes > fileBytes) return "is cut short or damaged";
  return undefined;
}
