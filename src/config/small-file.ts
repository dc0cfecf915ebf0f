/** Files of settings, keys and templates: small, regular, text. Nothing that a path may lead to keeps a start waiting or fills its memory. */
import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";

/** Enough for a thousand long keys, and for any chat template. */
const mostBytes = 1024 ** 2;

export interface SmallFile {
  readonly text: string;
  /** Of the file that was read: links were followed. */
  readonly stats: Stats;
}

/** @throws Error that says what is wrong with the file */
export function readSmallFile(path: string): SmallFile {
  // Without waiting: of a pipe that nobody writes to, `open` would not return.
  const descriptor = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const stats = fstatSync(descriptor);
    if (!stats.isFile()) throw new Error("this is not a regular file");
    const buffer = Buffer.alloc(mostBytes + 1);
    let length = 0;
    for (let read = -1; read !== 0 && length < buffer.length; length += read)
      read = readSync(descriptor, buffer, length, buffer.length - length, null);
    if (length > mostBytes) throw new Error(`it is larger than ${mostBytes} bytes`);
    return { text: decode(buffer.subarray(0, length)), stats };
  } finally {
    closeSync(descriptor);
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Error("it is not UTF-8 text", { cause });
  }
}
