/**
 * What a field of a message may be: how it lies on the wire, its limits, and what it is in the program.
 *
 * The table of messages (protocol.ts) is made of these. Both directions use the same check, on what lies on the wire: a
 * message that is read, and one that is about to be sent. What is missing, of another type or too large has a fault.
 */
import type { Tokens } from "../identity/tokens.ts";
import { tokenBytes } from "../identity/tokens.ts";
import type { Value } from "./msgpack.ts";

export interface Kind<T> {
  /** The kind as JSON: what the other language compares its own with. */
  readonly shape: { readonly kind: string; readonly [detail: string]: unknown };
  /** What is wrong with a value on the wire, in words that begin with the field's name; undefined: nothing. */
  fault(name: string, value: unknown): string | undefined;
  /** A value without fault, as the program has it. */
  read(value: Value): T;
  /** The reverse: what is encoded. */
  write(value: T): unknown;
}

/** The fields of a message, or the columns of a row, in their order. */
export interface FieldKinds {
  readonly [name: string]: Kind<unknown>;
}

/** The type that such fields have together. */
export type Typed<Kinds extends FieldKinds> = {
  readonly [Name in keyof Kinds]: Kinds[Name] extends Kind<infer T> ? T : never;
};

/** Whole and not negative. Stays below 2^32 in practice: readers of the other language take no float64 for it. */
export function count(most: number = Number.MAX_SAFE_INTEGER): Kind<number> {
  return plain(
    { kind: "count", most },
    (value) => isCount(value) && value <= most,
    "is not an integer within its limits",
  );
}

/** A count that may be above 2^32, where it travels as float64: bytes, and leases of sessions that live long. */
export function longCount<T extends number = number>(): Kind<T> {
  return plain({ kind: "longCount", most: Number.MAX_SAFE_INTEGER }, isCount, "is not an integer within its limits");
}

export function flag(): Kind<boolean> {
  return plain({ kind: "flag" }, (value) => typeof value === "boolean", "is not true or false");
}

export function text(most: number): Kind<string> {
  const is = (value: unknown) => typeof value === "string" && value.length <= most;
  return plain({ kind: "text", most }, is, `is not a text of at most ${most}`);
}

/** A text without line breaks. */
export function line(most: number): Kind<string> {
  const is = (value: unknown) => typeof value === "string" && value.length <= most && !/[\r\n]/.test(value);
  return plain({ kind: "line", most }, is, `is not a text of at most ${most} in one line`);
}

/** One of a few texts, which are values of the program as well. */
export function oneOf<T extends string>(texts: readonly T[], what: string): Kind<T> {
  const is = (value: unknown) => (texts as readonly unknown[]).includes(value);
  return plain({ kind: "oneOf", texts }, is, `is not ${what}`);
}

/** One of a few names, each of which travels as its number. */
export function numbered<Name extends string>(numbers: Readonly<Record<Name, number>>, what: string): Kind<Name> {
  const names = new Map(
    (Object.entries(numbers) as [Name, number][]).map(([name, number]) => [number as unknown, name]),
  );
  return {
    shape: { kind: "numbered", numbers },
    fault: (name, value) => (names.has(value) ? undefined : `${name} is not ${what}`),
    read: (value) => names.get(value)!, // has no fault
    write: (value) => numbers[value],
  };
}

/** 32 bytes; 64 hexadecimal digits in the program. */
export function digest<T extends string>(): Kind<T> {
  return {
    shape: { kind: "digest" },
    fault: (name, value) =>
      value instanceof Uint8Array && value.length === 32 ? undefined : `${name} is not a digest of 32 bytes`,
    read(value) {
      const bytes = value as Uint8Array; // has no fault
      return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex") as T;
    },
    write: (value) => Buffer.from(value, "hex"),
  };
}

/** Many digests, one after the other without anything between. */
export function digests<T extends string>(most: number): Kind<readonly T[]> {
  return {
    shape: { kind: "digests", most },
    fault: (name, value) =>
      value instanceof Uint8Array && value.length % 32 === 0 && value.length <= 32 * most
        ? undefined
        : `${name} is not a row of at most ${most} digests`,
    read(value) {
      const { buffer, byteOffset, length } = value as Uint8Array; // has no fault
      const bytes = Buffer.from(buffer, byteOffset, length);
      return Array.from({ length: length / 32 }, (_, i) => bytes.toString("hex", 32 * i, 32 * i + 32) as T);
    },
    write: (value) => Buffer.from(value.join(""), "hex"),
  };
}

/** Checksums of 128 bits, little-endian, one after the other. */
export function checksums(most: number): Kind<readonly bigint[]> {
  return {
    shape: { kind: "checksums", most },
    fault: (name, value) =>
      value instanceof Uint8Array && value.length % 16 === 0 && value.length <= 16 * most
        ? undefined
        : `${name} is not a row of at most ${most} checksums`,
    read(value) {
      const { buffer, byteOffset, length } = value as Uint8Array; // has no fault
      const view = new DataView(buffer, byteOffset, length);
      return Array.from(
        { length: length / 16 },
        (_, i) => view.getBigUint64(16 * i, true) | (view.getBigUint64(16 * i + 8, true) << 64n),
      );
    },
    write(value) {
      const halves = value.flatMap((each) => [each & 0xffff_ffff_ffff_ffffn, each >> 64n]);
      return new Uint8Array(BigUint64Array.from(halves).buffer);
    },
  };
}

/** Token ids, u32 LE. What is read lies in the frame and is valid as long as that is; what is sent is not copied. */
export function tokens(): Kind<Tokens> {
  return {
    shape: { kind: "tokens" },
    fault: (name, value) =>
      value instanceof Uint8Array && value.length % 4 === 0 ? undefined : `${name} is not a row of u32`,
    read: (value) => alignedTokens(value as Uint8Array), // has no fault
    write: tokenBytes,
  };
}

/** nil on the wire is undefined in the program. */
export function optional<T>(kind: Kind<T>): Kind<T | undefined> {
  return {
    shape: { kind: "optional", of: kind.shape },
    fault: (name, value) => (value === null ? undefined : kind.fault(name, value)),
    read: (value) => (value === null ? undefined : kind.read(value)),
    write: (value) => (value === undefined ? null : kind.write(value)),
  };
}

/** A list of plain items: each is the same in the program as on the wire. */
export function list<T>(item: Kind<T>, most: number): Kind<readonly T[]> {
  const is = (value: unknown) =>
    Array.isArray(value) && value.length <= most && value.every((each) => item.fault("", each) === undefined);
  return plain({ kind: "list", of: item.shape, most }, is, `is not a list of at most ${most} such items`);
}

/** A list of rows: arrays on the wire, whose columns have names in the program. */
export function rows<Columns extends FieldKinds>(columns: Columns, most: number): Kind<readonly Typed<Columns>[]> {
  const entries = Object.entries(columns);
  const rowFault = (row: unknown): string | undefined => {
    if (!Array.isArray(row) || row.length !== entries.length) return `is not a list of rows of ${entries.length}`;
    for (let at = 0; at < entries.length; at += 1) {
      const [name, kind] = entries[at]!; // as many as entries
      const fault = kind.fault(name, row[at]);
      if (fault !== undefined) return `has a row whose ${fault}`;
    }
    return undefined;
  };
  return {
    shape: { kind: "rows", columns: shapes(columns), most },
    fault(name, value) {
      if (!Array.isArray(value) || value.length > most) return `${name} is not a list of at most ${most} rows`;
      for (const row of value) {
        const fault = rowFault(row);
        if (fault !== undefined) return `${name} ${fault}`;
      }
      return undefined;
    },
    read(value) {
      return (value as readonly (readonly Value[])[]).map((row) => {
        const named: Record<string, unknown> = {};
        for (let at = 0; at < entries.length; at += 1) named[entries[at]![0]] = entries[at]![1].read(row[at]!); // has no fault
        return named as Typed<Columns>;
      });
    },
    write: (value) => value.map((row) => entries.map(([name, kind]) => kind.write(row[name]))),
  };
}

/** Counts by a name that the sender chooses: bytes by tier, or by a drive's directory. */
export function countByName(item: Kind<number>): Kind<Readonly<Record<string, number>>> {
  return {
    shape: { kind: "countByName", of: item.shape },
    fault(name, value) {
      if (!isMap(value)) return `${name} is not a map`;
      for (const [key, each] of Object.entries(value)) {
        const fault = item.fault(key, each);
        if (fault !== undefined) return fault;
      }
      return undefined;
    },
    read: (value) => ({ ...(value as Readonly<Record<string, number>>) }), // has no fault; read maps have no prototype
    write: (value) => value,
  };
}

/** A map of which nothing is said here. */
export function anyMap(): Kind<{ readonly [key: string]: Value }> {
  return plain({ kind: "anyMap" }, isMap, "is not a map");
}

/** A map of exactly these fields. Every message passes here. */
export function record<Kinds extends FieldKinds>(kinds: Kinds): Kind<Typed<Kinds>> {
  const names = Object.keys(kinds);
  const each = Object.values(kinds);
  return {
    shape: { kind: "record", fields: shapes(kinds) },
    fault(name, value) {
      if (!isMap(value)) return `${name} is not a map`;
      for (let at = 0; at < names.length; at += 1) {
        const field = names[at]!; // below its length
        const fault = each[at]!.fault(field, value[field]);
        if (fault !== undefined) return fault;
      }
      return Object.keys(value).length === names.length ? undefined : `${name} has a field that does not belong`;
    },
    read(value) {
      const map = value as { readonly [key: string]: Value }; // has no fault
      const fields: Record<string, unknown> = {};
      for (let at = 0; at < names.length; at += 1) fields[names[at]!] = each[at]!.read(map[names[at]!]!); // likewise
      return fields as Typed<Kinds>;
    },
    write(value) {
      const fields: Record<string, unknown> = {};
      for (let at = 0; at < names.length; at += 1) fields[names[at]!] = each[at]!.write(value[names[at]!]);
      return fields;
    },
  };
}

/** The kinds of fields as JSON, in their order. */
export function shapes(kinds: FieldKinds): { readonly [name: string]: Kind<unknown>["shape"] } {
  return Object.fromEntries(Object.entries(kinds).map(([name, { shape }]) => [name, shape]));
}

/** The same in the program as on the wire. */
function plain<T>(shape: Kind<T>["shape"], is: (value: unknown) => boolean, what: string): Kind<T> {
  return {
    shape,
    fault: (name, value) => (is(value) ? undefined : `${name} ${what}`),
    read: (value) => value as T, // has no fault
    write: (value) => value,
  };
}

/**
 * The tokens in the frame that they came in: moved up to three bytes to the front, over the length that was read before
 * them, where they do not lie at a multiple of four. A copy of their own would be garbage for every request.
 */
function alignedTokens(bytes: Uint8Array): Tokens {
  const start = bytes.byteOffset & ~3;
  if (start !== bytes.byteOffset) new Uint8Array(bytes.buffer, start, bytes.length).set(bytes);
  return new Uint32Array(bytes.buffer, start, bytes.length / 4);
}

function isMap(value: unknown): value is { readonly [key: string]: Value } {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0;
}
