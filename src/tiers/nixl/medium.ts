/**
 * Where one transfer thread keeps values: files or objects. Everything moves through the thread's own memory, of which the value has
 * `bytes` from {@link Medium.valueOffset} on, one value at a time.
 */
export interface Medium {
  readonly valueOffset: number;

  /** Small values; undefined where there is none, or a longer one. @throws Error when the store fails */
  getAll(names: readonly string[], wanted: Wanted): (Uint8Array | undefined)[];

  /** A value of this length into the memory. @throws Error when the store fails */
  read(name: string, bytes: number): "read" | "gone";

  /** The value that lies in the memory. @returns "blocked": what is not ours has its place. @throws Error when the store fails */
  write(name: string, bytes: number): "written" | "full" | "blocked";

  /** Waits until nothing of it is under way. */
  close(): void;
}

export interface Wanted {
  readonly maxBytes: number;
  /** Asked before each transfer: when nobody waits any more, what is left is not read. */
  readonly isWanted: () => boolean;
}

/** The thread is to end now, whatever is under way. */
export class Stopped extends Error {}

/** Waits for a transfer to end; between looks it calls `pause`, which may throw {@link Stopped}. */
export type Wait = (poll: () => "running" | "done" | "failed") => "done" | "failed";

/** The largest value: what the tier's pieces are, with room for a frame around one. */
export const mostValueBytes = 4 * 1024 * 1024 - 4096;
/** What a thread has in memory. */
export const memoryBytes = 4 * 1024 * 1024;

/** Names that the tier above makes: a chunk's, or of a record's piece. @throws Error for any other */
export function checkedName(name: string): string {
  if (!/^[0-9a-f]{32,64}(?::\d{1,6}:\d{1,6})?$/.test(name)) throw new Error(`Bug: "${name}" is no name of a value`);
  return name;
}

export function isPiece(name: string): boolean {
  return name.length > 64 || /[:-]/.test(name);
}
