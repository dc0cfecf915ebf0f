/**
 * The wire protocol: the verbs of session.ts as messages, each a MessagePack map in a frame (frames.ts).
 *
 *     guest                                        cache
 *       hello ───────────────────────────────────►            version, features, space, rank, slotBytes, token
 *             ◄─────────────────────────────────── welcome    spaceId, pool
 *       lookup · reserve · commit · stats · ping ─►            numbered, pipelined, each with a deadline
 *             ◄─────── found · reserved · committed · figures · pong   (or error), in any order
 *       touch · pin ─────────────────────────────►            the same
 *             ◄─────────────────────────── touched · pinned
 *       load ────────────────────────────────────►
 *             ◄───────────── found, chunks, chunks, … loaded         all that are ready go together; `cancel` ends it
 *       release · abandon · bye ──────────────────►            no answer
 *       clear ────────────────────────────────────► cleared    forgets all that is stored
 *       compact ──────────────────────────────────► compacted  gives back the room of what cannot be found any more
 *
 * A guest whose `space` is nil has no session: it comes to look (stats), to clear or to compact, and may do nothing else.
 *
 * In a lookup and a load the guest says what computing a token of a prompt costs it: `computeNs`, 0 when it does not know.
 * What the answer calls `worthTokens` is as much of the hit as is worth loading then, and as much as a load brings.
 *
 * A load's `found` is a lookup's answer for the whole text, so that the guest knows at once what will come and from
 * where. With `onlyReady` just the chunks that are in memory now come, and nothing is read from below.
 *
 * Bytes of KV never travel here: a chunk's tuple names its slot in the pool. Tokens are binary, u32 LE; a tier is its
 * name in `tokensByTier` and its number ({@link tierNumbers}) in a chunk's tuple. A peer that
 * sends anything else is disconnected. Golden frames of every message: test/golden/wire.
 */
import type { LeaseId, WrittenChunk } from "../cache/session.ts";
import type { SpaceDescription } from "../cache/space.ts";
import type { TierName } from "../tier.ts";
import { errorCodes, type ErrorCode } from "../errors.ts";
import type { Tokens } from "../cache/chunk.ts";
import { Fields, wrong } from "./fields.ts";
import { decodeValue, type Value } from "./msgpack.ts";

export const protocolVersion = 3;
/** Requests of one connection that may wait for their answers. Further ones are answered with QUEUE_FULL. */
export const maxPendingRequests = 1024;
/** Tokens that the requests of one connection may hold while they wait: 64 MiB. Beyond them the same answer. */
export const maxPendingTokens = 2 ** 24;
/** Tokens of a text in one message; what comes after them is neither found nor stored. They take half a frame. */
export const maxRequestTokens = 2 ** 21;
/** How a chunk's tuple names the tier it was found in. Numbers are never given to another tier. */
export const tierNumbers: Readonly<Record<TierName, number>> = { resident: 0, memory: 1, disk: 2 };
/**
 * Feature: this guest registers the pool's memory with a device. Pages that go back to the system under such a guest would
 * still be what its device reads and writes, so the pool does not shrink while one is connected.
 */
export const pinnedPool = "pinned-pool";
/** Leases in one message. */
const maxListed = 65_536;
const maxDeadlineMs = 3_600_000;

export interface Hello {
  readonly type: "hello";
  readonly id: number;
  readonly version: number;
  /** Names of optional abilities; what both sides name is in force. See {@link pinnedPool}. */
  readonly features: readonly string[];
  /** undefined (nil on the wire): no session is wanted. */
  readonly space: SpaceDescription | undefined;
  readonly rank: number;
  readonly slotBytes: number;
  /** "" when the cache asks for none. */
  readonly token: string;
}

interface TextRequest {
  readonly id: number;
  readonly deadlineMs: number;
  readonly salt: string;
  readonly adapter: string;
  readonly tokens: Tokens;
}

interface ReadRequest extends TextRequest {
  /** Nanoseconds that computing a token of a prompt costs the guest; 0: not known, so everything is worth loading. */
  readonly computeNs: number;
}

export type Request =
  | Hello
  | ({ readonly type: "lookup" } & ReadRequest)
  | ({ readonly type: "load"; readonly from: number; readonly onlyReady: boolean } & ReadRequest)
  | { readonly type: "cancel"; readonly id: number }
  | { readonly type: "release"; readonly leases: readonly LeaseId[] }
  | ({ readonly type: "reserve" } & TextRequest)
  | ({ readonly type: "touch" } & TextRequest)
  | ({ readonly type: "pin"; readonly seconds: number } & TextRequest)
  | {
      readonly type: "commit";
      readonly id: number;
      readonly deadlineMs: number;
      readonly chunks: readonly WrittenChunk[];
    }
  | { readonly type: "abandon"; readonly leases: readonly LeaseId[] }
  | { readonly type: "stats"; readonly id: number; readonly deadlineMs: number }
  | { readonly type: "clear"; readonly id: number; readonly deadlineMs: number }
  | { readonly type: "compact"; readonly id: number; readonly deadlineMs: number }
  | { readonly type: "ping"; readonly id: number; readonly deadlineMs: number }
  | { readonly type: "bye" };

export type Answer =
  | {
      readonly type: "welcome";
      readonly id: number;
      readonly version: number;
      readonly features: readonly string[];
      readonly spaceId: string;
      readonly poolPath: string;
      /** Length of the pool's file, which is sparse. */
      readonly poolBytes: number;
      /** How much of it may be in use at a time, from its beginning on unless it was resized. */
      readonly poolCapacityBytes: number;
    }
  | {
      readonly type: "found";
      readonly id: number;
      readonly hitTokens: number;
      readonly tokensByTier: Readonly<Record<string, number>>;
      readonly worthTokens: number;
    }
  | { readonly type: "chunks"; readonly id: number; readonly chunks: readonly LoadedTuple[] }
  | { readonly type: "loaded"; readonly id: number }
  | {
      readonly type: "reserved";
      readonly id: number;
      readonly full: boolean;
      readonly chunks: readonly ReservedTuple[];
    }
  | { readonly type: "committed"; readonly id: number }
  | { readonly type: "touched"; readonly id: number; readonly hitTokens: number }
  | { readonly type: "pinned"; readonly id: number; readonly pinnedTokens: number }
  | { readonly type: "figures"; readonly id: number; readonly stats: { readonly [key: string]: Value } }
  /** Bytes that became free, by tier; chunks that are still in use and go as soon as they are not. */
  | {
      readonly type: "cleared";
      readonly id: number;
      readonly bytesByTier: Readonly<Record<string, number>>;
      readonly chunksInUse: number;
    }
  /** Bytes given back and bytes written anew for it, by the drive's directory. */
  | {
      readonly type: "compacted";
      readonly id: number;
      readonly freedBytes: Readonly<Record<string, number>>;
      readonly movedBytes: Readonly<Record<string, number>>;
    }
  | { readonly type: "pong"; readonly id: number }
  | { readonly type: "error"; readonly id: number; readonly code: ErrorCode; readonly message: string };

export type LoadedTuple = readonly [
  lease: number,
  firstToken: number,
  tokenCount: number,
  matchedTokens: number,
  tier: number,
  offset: number,
  bytes: number,
];

export type ReservedTuple = readonly [
  lease: number,
  firstToken: number,
  tokenCount: number,
  offset: number,
  bytes: number,
];

/** Reads a guest's message. Its tokens lie in `body` and are valid as long as that is. @throws RepriseError PROTOCOL unless every field is as it must be */
export function parseRequest(body: Uint8Array): Request {
  const fields = new Fields(decodeValue(body));
  const request = requestOf(fields);
  fields.end();
  return request;
}

/** Reads a cache's message. @throws RepriseError PROTOCOL unless every field is as it must be */
export function parseAnswer(body: Uint8Array): Answer {
  const fields = new Fields(decodeValue(body));
  const answer = answerOf(fields);
  fields.end();
  return answer;
}

function requestOf(fields: Fields): Request {
  const type = fields.text("type", 16);
  switch (type) {
    case "hello":
      return {
        type,
        id: fields.integer("id"),
        version: fields.integer("version"),
        features: fields.texts("features"),
        space: fields.optional("space", parseSpace),
        rank: fields.integer("rank"),
        slotBytes: fields.integer("slotBytes"),
        token: fields.text("token", 4096),
      };
    case "lookup":
      return { type, ...textRequest(fields), computeNs: fields.integer("computeNs") };
    case "reserve":
    case "touch":
      return { type, ...textRequest(fields) };
    case "pin":
      return { type, ...textRequest(fields), seconds: fields.integer("seconds") };
    case "load":
      return {
        type,
        ...textRequest(fields),
        computeNs: fields.integer("computeNs"),
        from: fields.integer("from"),
        onlyReady: fields.boolean("onlyReady"),
      };
    case "release":
    case "abandon":
      return { type, leases: fields.integers("leases", maxListed) as LeaseId[] };
    case "commit":
      return {
        type,
        id: fields.integer("id"),
        deadlineMs: fields.integer("deadlineMs", maxDeadlineMs),
        chunks: fields
          .tuples("chunks", 2, maxListed)
          .map(([lease, bytes]) => ({ lease: lease as LeaseId, bytes: bytes! })), // tuples of 2
      };
    case "stats":
    case "clear":
    case "compact":
    case "ping":
      return { type, id: fields.integer("id"), deadlineMs: fields.integer("deadlineMs", maxDeadlineMs) };
    case "cancel":
      return { type, id: fields.integer("id") };
    case "bye":
      return { type };
    default:
      throw wrong("type", "is not a request");
  }
}

function answerOf(fields: Fields): Answer {
  const type = fields.text("type", 16);
  const id = fields.integer("id");
  switch (type) {
    case "welcome":
      return {
        type,
        id,
        version: fields.integer("version"),
        features: fields.texts("features"),
        spaceId: fields.text("spaceId", 64),
        poolPath: fields.text("poolPath", 4096),
        poolBytes: fields.integer("poolBytes"),
        poolCapacityBytes: fields.integer("poolCapacityBytes"),
      };
    case "found":
      return {
        type,
        id,
        hitTokens: fields.integer("hitTokens"),
        tokensByTier: fields.map("tokensByTier").allIntegers(),
        worthTokens: fields.integer("worthTokens"),
      };
    case "chunks":
      return { type, id, chunks: fields.tuples("chunks", 7, maxListed) as unknown[] as LoadedTuple[] };
    case "reserved":
      return {
        type,
        id,
        full: fields.boolean("full"),
        chunks: fields.tuples("chunks", 5, maxListed) as unknown[] as ReservedTuple[],
      };
    case "touched":
      return { type, id, hitTokens: fields.integer("hitTokens") };
    case "pinned":
      return { type, id, pinnedTokens: fields.integer("pinnedTokens") };
    case "figures":
      return { type, id, stats: fields.raw("stats") };
    case "cleared":
      return {
        type,
        id,
        bytesByTier: fields.map("bytesByTier").allIntegers(),
        chunksInUse: fields.integer("chunksInUse"),
      };
    case "compacted":
      return {
        type,
        id,
        freedBytes: fields.map("freedBytes").allIntegers(),
        movedBytes: fields.map("movedBytes").allIntegers(),
      };
    case "loaded":
    case "committed":
    case "pong":
      return { type, id };
    case "error": {
      const code = fields.text("code", 64);
      if (!Object.hasOwn(errorCodes, code)) throw wrong("code", "is not an error code");
      return { type, id, code: code as ErrorCode, message: fields.text("message", 65_536) };
    }
    default:
      throw wrong("type", "is not an answer");
  }
}

function textRequest(fields: Fields): TextRequest {
  return {
    id: fields.integer("id"),
    deadlineMs: fields.integer("deadlineMs", maxDeadlineMs),
    salt: fields.text("salt", 4096),
    adapter: fields.text("adapter", 4096),
    tokens: fields.tokens("tokens"),
  };
}

function parseSpace(fields: Fields): SpaceDescription {
  const line = (name: string) => {
    const text = fields.text(name, 4096);
    if (/[\r\n]/.test(text)) throw wrong(name, "has a line break");
    return text;
  };
  const space: SpaceDescription = {
    engine: line("engine"),
    payloadFormat: fields.integer("payloadFormat"),
    weights: line("weights"),
    keyType: line("keyType"),
    valueType: line("valueType"),
    layers: fields.integer("layers"),
    keyValueHeads: fields.integer("keyValueHeads"),
    keySize: fields.integer("keySize"),
    valueSize: fields.integer("valueSize"),
    layout: line("layout"),
    attention: line("attention"),
    rope: line("rope"),
    tensorParallel: fields.integer("tensorParallel"),
    chunkTokens: fields.integer("chunkTokens"),
  };
  fields.end();
  return space;
}
