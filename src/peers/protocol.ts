/**
 * What hosts say to each other: one reads chunks that the other's cache has.
 *
 *     reader                                       host that has it
 *       hello ───────────────────────────────────►            version, token
 *             ◄─────────────────────────────────── welcome
 *       find ────────────────────────────────────►            space, root, the keys of a text's chunks
 *             ◄─────────────────────────────────── found      of the leading ones that are here, their parts' lengths
 *       fetch ───────────────────────────────────►            a key, which parts, and whether they may be packed
 *             ◄─────────────────────────────────── payload    for each part its length; then its bytes, in no frame
 *             ◄─────────────────────────────────── block      where it is packed: before each MiB, what that has come to
 *             ◄─────────────────────────────────── sent       their checksums, or at any point in place of the rest: gone
 *       ping ────────────────────────────────────► pong
 *
 * Requests are answered in their order, one after the other, so a payload's bytes are never cut by another answer. Checksums
 * follow the bytes, because they are computed while those are sent.
 *
 * Packed payloads (../tiers/shared/packing.ts) travel in blocks of 1 MiB, so that one is packed while the one before it travels and the
 * one before that is unpacked, and no host needs memory for more. A block that does not become smaller, or finds the host busy with
 * packing, goes as it is. Lengths and checksums are of the payload itself.
 *
 * Why keys and not tokens: a host learns nothing of texts that it does not have, and whoever cannot name a text exactly, with its
 * root and so with its tenant's salt, cannot ask for it. A question of 32,000 tokens takes 16 KiB and one round trip.
 *
 * The version is this protocol's own; hello and welcome stay what they are, so that hosts of two versions can tell each other. Frames
 * and kinds of fields are those of guests (../wire/protocol.ts).
 */
import { assert, errorCodes, RepriseError, type ErrorCode } from "../errors.ts";
import type { ChunkKey, RootKey } from "../identity/keys.ts";
import type { SpaceId } from "../identity/space.ts";
import { checksums, count, digest, digests, flag, list, longCount, oneOf, rows, text } from "../wire/kinds.ts";
import { messageKinds, type Messages, parseMessage, writeMessage } from "../wire/messages.ts";

export const peerVersion = 2;
/** Keys in one question: a quarter of a million tokens in chunks of 64. */
export const maxKeys = 4096;
/** The longest request, with room. */
export const maxRequestBytes = 64 * maxKeys;
/** The longest answer, with room. */
export const maxAnswerBytes = 2 * 1024 * 1024;
/** Requests of one connection that may wait for their turn. */
export const maxWaiting = 16;
/** As many as records on disk may have. */
export const maxParts = 1024;
/** A connection on which nothing was asked for so long is ended; whoever wants to keep one pings. */
export const idleMs = 60_000;

const id = count();
const part = count(maxParts - 1);
const lengths = list(count(), maxParts);
const ofText = { space: digest<SpaceId>(), root: digest<RootKey>() };

const requests = {
  hello: { id, version: count(), token: text(4096) },
  find: { id, ...ofText, keys: digests<ChunkKey>(maxKeys) },
  /** `roomBytes`: of each part's memory, as long as its payload or that padded to whole pages; any other is gone. */
  fetch: {
    id,
    key: digest<ChunkKey>(),
    parts: rows({ part, roomBytes: longCount() }, maxParts),
    compress: oneOf(["none", "lossless"], "a compression"),
  },
  ping: { id },
} as const;

const answers = {
  welcome: { id, version: count() },
  found: { id, chunks: rows({ payloadBytes: lengths }, maxKeys) },
  payload: { id, part, length: longCount(), isPacked: flag() },
  /** `bytes`: of the block as a whole, or of its two planes. */
  block: { id, bytes: list(count(), 2) },
  sent: { id, checksums: checksums(maxParts) },
  gone: { id },
  pong: { id },
  error: {
    id,
    code: oneOf(Object.keys(errorCodes) as ErrorCode[], "an error code"),
    message: text(4096),
  },
} as const;

export type PeerRequest = Messages<typeof requests>;
export type PeerAnswer = Messages<typeof answers>;
export type PeerRequestOf<Type extends PeerRequest["type"]> = Extract<PeerRequest, { type: Type }>;
export type PeerAnswerOf<Type extends PeerAnswer["type"]> = Extract<PeerAnswer, { type: Type }>;

const requestKinds = messageKinds(requests);
const answerKinds = messageKinds(answers);

/** @throws RepriseError PROTOCOL unless every field is as it must be */
export function parsePeerRequest(body: Uint8Array): PeerRequest {
  return parseMessage(requestKinds, body, "a request") as PeerRequest;
}

/** @throws RepriseError PROTOCOL unless every field is as it must be */
export function parsePeerAnswer(body: Uint8Array): PeerAnswer {
  return parseMessage(answerKinds, body, "an answer") as PeerAnswer;
}

/** As it is encoded. @throws RepriseError BAD_REQUEST when a field does not fit */
export function peerRequestMap(request: PeerRequest): object {
  const { map, fault } = writeMessage(requestKinds, request);
  if (fault !== undefined) throw new RepriseError("BAD_REQUEST", `a host takes no ${request.type} whose ${fault}`);
  return map;
}

/** As it is encoded. */
export function peerAnswerMap(answer: PeerAnswer): object {
  const { map, fault } = writeMessage(answerKinds, answer);
  assert(fault === undefined, `a host was to send ${answer.type} whose ${fault}`);
  return map;
}
