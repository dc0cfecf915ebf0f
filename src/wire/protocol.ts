/**
 * The wire protocol: the verbs of session.ts as messages, each a MessagePack map in a frame (frames.ts).
 *
 *     guest                                        cache
 *       hello ───────────────────────────────────►            version, features, space, rank, slotBytes, token, model
 *             ◄─────────────────────────────────── welcome    spaceId, pool
 *       lookup · reserve · commit · stats · ping ─►            numbered, pipelined, each with a deadline
 *             ◄─────── found · reserved · committed · figures · pong   (or error), in any order
 *       touch · pin · prefetch ──────────────────►            the same; `cancel` ends a pin and a prefetch
 *             ◄────────────── touched · pinned · prefetched
 *       load ────────────────────────────────────►
 *             ◄─────────────── found, parts, parts, … loaded         all that are ready go together; `cancel` ends it
 *       release · abandon · bye ──────────────────►            no answer
 *       clear ────────────────────────────────────► cleared    forgets all that is stored
 *       compact ──────────────────────────────────► compacted  gives back the room of what cannot be found any more
 *
 * A guest whose `space` is nil has no session: it comes to look (stats), to clear or to compact, and may do nothing else.
 *
 * A text is named by its tokens and by `root`, the root's key (../identity/keys.ts), which the guest computes: no text that a
 * client has chosen travels here, so none can break a message. `tenant` is a {@link TenantName} or nil.
 *
 * In a lookup and a load the guest says what computing a token of a prompt costs it: `computeNs`, 0 when it does not know.
 * What the answer calls `worthTokens` is as much of the hit as is worth loading then, and as much as a load brings.
 *
 * What is stored of a text is a list of segments; a load's parts say which of their tokens stand where in it (session.ts).
 * A load's `found` is a lookup's answer for the whole text, so that the guest knows at once what will come and from where.
 * With `onlyReady` just what is in memory now comes, and nothing is read from below or asked elsewhere. Its `found` says `more` where
 * others (shared tiers, a disk whose records are still returning) may have more of the text and it is worth asking them. A lookup asks
 * them; then it has two answers: what is known at once, with `more`, and later what is known when they have answered. Where it is
 * `awaited`, somebody has just stored the text elsewhere: they are asked until they have all of it, or the deadline is over.
 *
 * Bytes of KV never travel here: a part's row names its slot in the pool. Tokens are binary, u32 LE; tiers and kinds are
 * numbers there. A peer that sends anything else is disconnected.
 *
 * The two tables below are the protocol: types, reading, writing and the limits follow from them. test/golden/wire holds
 * them as JSON (protocol.json), which the other language is compared with, and a frame of every message.
 */
import { type LeaseId, maxGroups, maxSegments, type SegmentKind } from "../session.ts";
import { tierNumbers } from "../tier.ts";
import { assert, errorCodes, RepriseError, type ErrorCode } from "../errors.ts";
import type { RootKey, TenantName } from "../identity/keys.ts";
import type { GroupKind } from "../identity/space.ts";
import {
  anyMap,
  count,
  countByName,
  digest,
  flag,
  line,
  list,
  longCount,
  numbered,
  oneOf,
  optional,
  record,
  rows,
  text,
  tokens,
} from "./kinds.ts";
import { messageKinds, type Messages, parseMessage, writeMessage } from "./messages.ts";

export const protocolVersion = 7;
/** Requests of one connection that may wait for their answers. Further ones are answered with QUEUE_FULL. */
export const maxPendingRequests = 1024;
/** Tokens that the requests of one connection may hold while they wait: 64 MiB. Beyond them the same answer. */
export const maxPendingTokens = 2 ** 24;
/** Tokens of a text in one message; what comes after them is neither found nor stored. They take half a frame. */
export const maxRequestTokens = 2 ** 21;
/** How a segment and a chunk's row name their kind. */
const kindNumbers: Readonly<Record<SegmentKind, number>> = { exact: 0, moved: 1 };
/**
 * Feature: this guest registers the pool's memory with a device. Pages that go back to the system under such a guest would
 * still be what its device reads and writes, so the pool does not shrink while one is connected.
 */
export const registeredPool = "registered-pool";
/** Of a space's texts, a token and a path. */
export const maxTextCharacters = 4096;
/** Of an error's text. */
export const maxMessageCharacters = 65_536;
/** Leases in one message. */
export const maxListed = 65_536;
export const maxDeadlineMs = 3_600_000;

const id = count();
const deadlineMs = count(maxDeadlineMs);
const lease = longCount<LeaseId>();
const tier = numbered(tierNumbers(), "a tier's number");
const segmentKind = numbered(kindNumbers, "a kind of segment");
const leases = list(lease, maxListed);
/** Names of optional abilities; what both sides name is in force. See {@link registeredPool}. */
const features = list(text(maxTextCharacters), 64);
const numberedOnly = { id };
const waiting = { id, deadlineMs };
/**
 * A text, in the root of that key, and whose share of the memory it takes. Tokens come before numbers, whose length varies:
 * where they do not lie at a multiple of four they are moved, some 20 us for 32,000.
 */
const aboutText = { root: digest<RootKey>(), tenant: optional(digest<TenantName>()), tokens: tokens(), ...waiting };
/** Nanoseconds that computing a token of a prompt costs the guest; 0: not known, so everything is worth loading. */
const reading = { ...aboutText, computeNs: count() };

/** SpaceDescription. */
const space = record({
  engine: line(maxTextCharacters),
  payloadFormat: count(),
  weights: line(maxTextCharacters),
  keyType: line(maxTextCharacters),
  valueType: line(maxTextCharacters),
  layers: count(),
  keyValueHeads: count(),
  keySize: count(),
  valueSize: count(),
  layout: line(maxTextCharacters),
  attention: line(maxTextCharacters),
  rope: line(maxTextCharacters),
  tensorParallel: count(),
  chunkTokens: count(),
  /** nil: one group of rows. */
  groups: optional(list(oneOf<GroupKind>(["rows", "snapshot"], "a kind of group"), maxGroups)),
});

/** What guests send: each message's fields, in their order. */
export const requests = {
  hello: {
    id,
    version: count(),
    features,
    /** undefined: no session is wanted. */
    space: optional(space),
    rank: count(),
    /** By group; empty without a space. */
    slotBytes: list(count(), maxGroups),
    /** "" when the cache asks for none. */
    token: text(maxTextCharacters),
    /** What people call the model of the space; "" when it has no name. It identifies nothing. */
    model: text(maxTextCharacters),
  },
  lookup: { ...reading, awaited: flag() },
  load: { ...reading, from: count(), onlyReady: flag() },
  cancel: numberedOnly,
  release: { leases },
  reserve: aboutText,
  touch: aboutText,
  pin: { ...aboutText, seconds: count() },
  prefetch: aboutText,
  commit: { ...waiting, parts: rows({ lease, bytes: longCount() }, maxListed) },
  abandon: { leases },
  stats: waiting,
  clear: waiting,
  compact: waiting,
  ping: waiting,
  bye: {},
} as const;

/** What caches send. */
export const answers = {
  welcome: {
    id,
    version: count(),
    features,
    spaceId: text(64),
    poolPath: text(maxTextCharacters),
    /** Length of the pool's file, which is sparse. */
    poolBytes: longCount(),
    /** How much of it may be in use at a time, from its beginning on unless it was resized. */
    poolCapacityBytes: longCount(),
  },
  found: {
    id,
    segments: rows({ kind: segmentKind, source: count(), from: count(), to: count(), tier }, maxSegments),
    worthTokens: count(),
    more: flag(),
  },
  parts: {
    id,
    parts: rows(
      {
        lease,
        group: count(maxGroups - 1),
        kind: segmentKind,
        firstToken: count(),
        tokenCount: count(),
        skip: count(),
        take: count(),
        target: count(),
        tier,
        offset: longCount(),
        bytes: longCount(),
      },
      maxListed,
    ),
  },
  loaded: numberedOnly,
  reserved: {
    id,
    full: flag(),
    parts: rows(
      {
        lease,
        group: count(maxGroups - 1),
        firstToken: count(),
        tokenCount: count(),
        offset: longCount(),
        bytes: longCount(),
      },
      maxListed,
    ),
  },
  committed: numberedOnly,
  touched: { id, hitTokens: count() },
  pinned: { id, pinnedTokens: count() },
  prefetched: { id, readyTokens: count() },
  figures: { id, stats: anyMap() },
  /** Bytes that became free, by tier; chunks that are still in use and go as soon as they are not. */
  cleared: { id, bytesByTier: countByName(longCount()), chunksInUse: count() },
  /** Bytes given back and bytes written anew for it, by the drive's directory. */
  compacted: { id, freedBytes: countByName(longCount()), movedBytes: countByName(longCount()) },
  pong: numberedOnly,
  error: {
    id,
    code: oneOf(Object.keys(errorCodes) as ErrorCode[], "an error code"),
    message: text(maxMessageCharacters),
  },
} as const;

export type Request = Messages<typeof requests>;
export type Answer = Messages<typeof answers>;
export type RequestOf<Type extends Request["type"]> = Extract<Request, { type: Type }>;
export type AnswerOf<Type extends Answer["type"]> = Extract<Answer, { type: Type }>;

const requestKinds = messageKinds(requests);
const answerKinds = messageKinds(answers);

/** Reads a guest's message. Its tokens lie in `body` and are valid as long as that is. @throws RepriseError PROTOCOL unless every field is as it must be */
export function parseRequest(body: Uint8Array): Request {
  return parseMessage(requestKinds, body, "a request") as Request;
}

/** Reads a cache's message. @throws RepriseError PROTOCOL unless every field is as it must be */
export function parseAnswer(body: Uint8Array): Answer {
  return parseMessage(answerKinds, body, "an answer") as Answer;
}

/** A guest's message as it is encoded. Its tokens are not copied. @throws RepriseError BAD_REQUEST when a field does not fit */
export function requestMap(request: Request): object {
  const { map, fault } = writeMessage(requestKinds, request);
  if (fault !== undefined) throw new RepriseError("BAD_REQUEST", `a cache takes no ${request.type} whose ${fault}`);
  return map;
}

/** A cache's message as it is encoded. */
export function answerMap(answer: Answer): object {
  const { map, fault } = writeMessage(answerKinds, answer);
  assert(fault === undefined, `a cache was to send ${answer.type} whose ${fault}`);
  return map;
}
