/** What stores may be told behind the question mark of their address, where it is the same for several of them. */
import { readFileSync } from "node:fs";
import { parseBytes } from "../../bytes.ts";
import { describe } from "../../errors.ts";
import { openZstd } from "../../ffi/zstd.ts";
import type { Compression } from "./payloads.ts";

/** Makes the error of one kind of store from what is wrong. */
export type Fault = (why: string) => Error;

/** What stands behind the question mark. Of a parameter that is given twice nobody knows which was meant. */
export function parametersOf(query: string, known: readonly string[], fault: Fault): ReadonlyMap<string, string> {
  const given = [...new URLSearchParams(query)];
  const odd = given.find(([name]) => !known.includes(name));
  if (odd !== undefined) throw fault(`there is no parameter "${odd[0]}"; there are: ${known.join(", ")}`);
  const twice = given.find(([name], i) => given.findIndex((each) => each[0] === name) < i);
  if (twice !== undefined) throw fault(`${twice[0]} is given twice`);
  return new Map(given);
}

export function compressionOf(text: string, fault: Fault): Compression {
  const compression = oneOf("compress", text, ["none", "lossless"], fault);
  if (compression === "lossless" && openZstd() === undefined)
    throw fault(
      "compress=lossless needs libzstd 1.4 or newer, which this machine lacks (Debian: apt-get install libzstd1)",
    );
  return compression;
}

/** The certificate that signed the store's. */
export function certificateIn(path: string, fault: Fault): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fault(`ca ${path} cannot be read: ${describe(error)}`);
  }
}

const units: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** @param least what is refused below it, also in words */
export function ttlOf(text: string, least: { readonly seconds: number; readonly words: string }, fault: Fault): number {
  const [, number, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  const seconds = Number(number) * (units[unit ?? ""] ?? Number.NaN);
  if (!(seconds >= least.seconds)) throw fault(`ttl "${text}" is no time of ${least.words} or more, such as 12h or 7d`);
  return seconds;
}

export function oneOf<T extends string>(name: string, text: string, words: readonly T[], fault: Fault): T {
  const found = words.find((each) => each === text);
  if (found !== undefined) return found;
  throw fault(`${name} "${text}" is none of: ${words.join(", ")}`);
}

export function sizeOf(name: string, text: string | undefined, fault: Fault): number | undefined {
  if (text === undefined) return undefined;
  try {
    return parseBytes(text);
  } catch (error) {
    throw fault(`${name}: ${describe(error)}`);
  }
}

export function connectionsOf(text: string, most: number, fault: Fault): number {
  const digits = new RegExp(`^\\d{1,${String(most).length}}$`);
  if (digits.test(text) && Number(text) >= 1 && Number(text) <= most) return Number(text);
  throw fault(`connections "${text}" is not a whole number from 1 to ${most}`);
}
