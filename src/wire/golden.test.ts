import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { Unpackr } from "msgpackr";
import { expect, test } from "vitest";
import { encodeFrame, FrameReader } from "./frames.ts";
import { decodeValue } from "./msgpack.ts";
import { type FieldKinds, type Kind, shapes } from "./kinds.ts";
import {
  answerMap,
  answers,
  maxDeadlineMs,
  maxListed,
  maxPendingRequests,
  maxRequestTokens,
  maxTextCharacters,
  parseAnswer,
  parseRequest,
  protocolVersion,
  requestMap,
  requests,
} from "./protocol.ts";

/**
 * test/golden/wire/messages.json describes a message of every type, one NAME.bin per entry holds its frame, protocol.json
 * the tables of messages. Python's tests read the same files. Tokens are written as {"u32le": [ … ]}, other bytes as
 * {"hex": "…"}. `UPDATE_GOLDEN=1 npx vitest run golden` writes frames and tables anew; a change to one is a change of the
 * protocol's version.
 */
interface Golden {
  readonly name: string;
  readonly from: "guest" | "cache";
  readonly message: { readonly [field: string]: unknown };
}

const folder = new URL("../../test/golden/wire/", import.meta.url);
const goldens = JSON.parse(readFileSync(new URL("messages.json", folder), "utf8")) as Golden[];

/** The message as it is encoded: bytes for the binary fields. */
function asSent({ message }: Golden): { [field: string]: unknown } {
  return mapped(message, (value) => {
    if (typeof value !== "object" || value === null) return value;
    if ("u32le" in value) return new Uint8Array(Uint32Array.from(value.u32le as number[]).buffer);
    return "hex" in value ? Buffer.from(value.hex as string, "hex") : value;
  });
}

/** The message as the protocol's types have it. */
function asParsed({ message }: Golden): { [field: string]: unknown } {
  return mapped(message, (value, field) => {
    if (value === null) return undefined; // nil, as the parser gives it
    const columns = tables[message["type"] as string]![field]?.shape["columns"]; // every type is in the tables
    if (columns !== undefined) return (value as number[][]).map((row) => named(columns as Columns, row));
    if (typeof value !== "object") return value;
    if ("u32le" in value) return Uint32Array.from(value.u32le as number[]);
    if ("hex" in value) return value.hex;
    return isMap(value) ? mapped(value as Golden["message"], (each) => each ?? undefined) : value;
  });
}

const tables: { readonly [type: string]: FieldKinds } = { ...requests, ...answers };

type Columns = { readonly [column: string]: Kind<unknown>["shape"] };

/** A row, its columns by their names. */
function named(columns: Columns, row: readonly number[]): { [column: string]: unknown } {
  return Object.fromEntries(
    Object.entries(columns).map(([column, { numbers }], i) => {
      const names = Object.entries((numbers ?? {}) as Readonly<Record<string, number>>);
      return [column, names.find(([, number]) => number === row[i])?.[0] ?? row[i]];
    }),
  );
}

function mapped(
  message: Golden["message"],
  change: (value: unknown, field: string) => unknown,
): { [field: string]: unknown } {
  return Object.fromEntries(Object.entries(message).map(([field, value]) => [field, change(value, field)]));
}

test.each(goldens)("$name is written and read as the golden frame says", (golden) => {
  const file = new URL(`${golden.name}.bin`, folder);
  const frame = encodeFrame(asSent(golden));
  if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(file, frame);
  expect(Buffer.compare(frame, readFileSync(file))).toBe(0);

  const reader = new FrameReader();
  for (const byte of frame) reader.push(Buffer.from([byte])); // in as many pieces as there can be
  const body = reader.next()!;
  const { parsed, map } =
    golden.from === "guest" ? reread(parseRequest, requestMap, body) : reread(parseAnswer, answerMap, body);
  expect(parsed).toEqual(asParsed(golden));
  expect(Buffer.compare(encodeFrame(map), frame)).toBe(0);
  expect(reader.pendingBytes).toBe(0);
});

function reread<Message>(parse: (body: Buffer) => Message, write: (message: Message) => object, body: Buffer) {
  const parsed = parse(body);
  return { parsed, map: write(parsed) };
}

test("protocol.json holds the tables, and there is a golden frame of every message", () => {
  const shapesOf = (table: { readonly [type: string]: FieldKinds }) =>
    Object.fromEntries(Object.entries(table).map(([type, fields]) => [type, shapes(fields)]));
  const described = {
    version: protocolVersion,
    limits: { maxPendingRequests, maxRequestTokens, maxListed, maxDeadlineMs, maxTextCharacters },
    requests: shapesOf(requests),
    answers: shapesOf(answers),
  };
  const file = new URL("protocol.json", folder);
  if (process.env["UPDATE_GOLDEN"] === "1") writeFileSync(file, `${JSON.stringify(described, null, 2)}\n`);
  // The order of fields counts, and how the file is formatted does not.
  expect(JSON.stringify(JSON.parse(readFileSync(file, "utf8")))).toBe(JSON.stringify(described));
  const types = new Set(goldens.map(({ from, message }) => `${from} ${message["type"] as string}`));
  expect([...types].toSorted()).toEqual(
    [
      ...Object.keys(requests).map((type) => `guest ${type}`),
      ...Object.keys(answers).map((type) => `cache ${type}`),
    ].toSorted(),
  );
});

/** A message of each table that is right, and each way in which one field of it may not be. */
const broken: [field: string, from: Golden["from"], name: string, change: object][] = [
  ["id", "cache", "pong", { id: 2 ** 53 }],
  ["id", "guest", "ping", { id: -1 }],
  ["deadlineMs", "guest", "ping", { deadlineMs: maxDeadlineMs + 1 }],
  ["deadlineMs", "guest", "stats", { deadlineMs: undefined }],
  ["onlyReady", "guest", "load", { onlyReady: 1 }],
  ["root", "guest", "lookup", { root: Buffer.alloc(31) }],
  ["tenant", "guest", "lookup", { tenant: "a" }],
  ["tokens", "guest", "lookup", { tokens: Buffer.alloc(7) }],
  ["token", "guest", "hello", { token: "a".repeat(maxTextCharacters + 1) }],
  ["features", "guest", "hello", { features: [1] }],
  ["features", "guest", "hello", { features: Array.from({ length: 65 }, () => "") }],
  ["space", "guest", "hello", { space: [] }],
  ["layers", "guest", "hello", { space: { layers: "32" } }],
  ["rope", "guest", "hello", { space: { rope: "a\nb" } }],
  ["leases", "guest", "release", { leases: [1, 0.5] }],
  ["parts", "guest", "commit", { parts: [[7, 512, 0]] }],
  ["bytes", "guest", "commit", { parts: [[7, -1]] }],
  ["tier", "cache", "parts", { parts: [[1, 0, 0, 0, 4, 0, 4, 0, 99, 0, 8]] }],
  ["group", "cache", "parts", { parts: [[1, 64, 0, 0, 4, 0, 4, 0, 1, 0, 8]] }],
  ["groups", "guest", "hello", { space: { groups: ["columns"] } }],
  ["slotBytes", "guest", "hello", { slotBytes: 4096 }],
  ["to", "cache", "found", { segments: [[0, 0, 0, 0.5, 1]] }],
  ["kind", "cache", "found", { segments: [[2, 0, 0, 4, 1]] }],
  ["more", "cache", "found", { more: 1 }],
  ["memory", "cache", "cleared", { bytesByTier: { memory: 0.5 } }],
  ["stats", "cache", "figures", { stats: 1 }],
  ["code", "cache", "error", { code: "NO_SUCH_CODE" }],
  ["message", "cache", "pong", { more: 1 }],
  ["message", "guest", "hello", { space: { more: 1 } }],
  ["type", "guest", "ping", { type: "pong" }],
  ["type", "cache", "pong", { type: "ping" }],
];

test.each(broken)("a message with a wrong %s (%s's %s) is refused by the field's name", (field, from, name, change) => {
  const golden = goldens.find((each) => each.name === name)!; // named in the list above
  const message = Object.entries(change).reduce(
    (sent, [key, value]: [string, unknown]) => ({
      ...sent,
      [key]: isMap(value) ? { ...(sent[key] as object), ...value } : value,
    }),
    asSent(golden),
  );
  for (const [key, value] of Object.entries(change)) if (value === undefined) delete message[key];
  const body = encodeFrame(message).subarray(4);
  const refusal = expect(() => (from === "guest" ? parseRequest(body) : parseAnswer(body)));
  refusal.toThrow(expect.objectContaining({ code: "PROTOCOL", message: expect.stringMatching(`\\b${field} `) }));
});

function isMap(value: unknown): value is object {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Uint8Array);
}

test("what does not fit the protocol is not sent", () => {
  const hello = parseRequest(encodeFrame(asSent(goldens.find(({ name }) => name === "hello")!)).subarray(4)); // it is there
  for (const change of [{ rank: 0.5 }, { slotBytes: [-1] }, { token: "a".repeat(maxTextCharacters + 1) }])
    expect(() => requestMap({ ...hello, ...change })).toThrow(
      expect.objectContaining({ code: "BAD_REQUEST", message: expect.stringContaining(Object.keys(change)[0]!) }),
    );
  expect(() => answerMap({ type: "touched", id: 1, hitTokens: 0.5 })).toThrow("Bug: ");
});

test("every golden frame is described, and our reader agrees with a general one", () => {
  const frames = readdirSync(folder).filter((name) => name.endsWith(".bin"));
  expect(frames.toSorted()).toEqual(goldens.map(({ name }) => `${name}.bin`).toSorted());
  const unpackr = new Unpackr({ useRecords: false, int64AsType: "number" });
  for (const name of frames) {
    const body = readFileSync(new URL(name, folder)).subarray(4);
    const plain = (value: unknown) =>
      JSON.stringify(value, (_, item: unknown) => (item instanceof Uint8Array ? [...item] : item));
    expect(plain(decodeValue(body))).toBe(plain(unpackr.unpack(body)));
  }
});
