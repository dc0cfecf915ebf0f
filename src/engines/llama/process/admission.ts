/**
 * Who gets the sequence that is free: decides, and moves nothing.
 *
 * Tenants take turns. Of the tenant whose turn it is the request comes first that has the fewest tokens left to compute; one
 * turn in four is its oldest's, so that a text that nobody knows is read as well.
 */
import type { EngineRequest } from "../messages.ts";
import type { Turn, TurnQueue } from "../turn-queue.ts";
import { tenantOf } from "./generation.ts";
import type { ResidentMatches } from "./resident-matches.ts";
import { place } from "./sequence-choice.ts";
import type { Placement } from "./sequence-choice.ts";
import type { Sequence } from "./sequence.ts";
import { WaitingMatches } from "./waiting-matches.ts";

/** A request that waits for a sequence. */
export interface Waiting {
  readonly request: EngineRequest;
  /** When it came, in ms. */
  readonly accepted: number;
}

export interface Admission {
  readonly waiting: Waiting;
  readonly tenant: string;
  readonly placement: Placement;
}

export interface AdmissionOptions {
  /** May KV be reused at all? */
  readonly canReuse: boolean;
  /** Deterministic mode: reuse whole slices of this many tokens only. */
  readonly sliceTokens: number | undefined;
  readonly matches: ResidentMatches;
  /** Tokens of its prompt that a request would load, as far as is known. */
  readonly storedTokens: (request: EngineRequest) => number;
}

/** One turn in so many of a tenant is its oldest request's. */
const turnsOfOldest = 4;

/** The next request, which is of the tenant with the fewest sequences; undefined when nobody waits or no sequence is free. */
export function nextAdmission(
  queue: TurnQueue<Waiting>,
  sequences: readonly Sequence[],
  options: AdmissionOptions,
): Admission | undefined {
  if (sequences.every(({ generation }) => generation !== undefined)) return undefined;
  const turn = queue.next((tenant) => sequences.filter((sequence) => isOf(tenant, sequence)).length);
  if (turn === undefined) return undefined;
  const { canReuse, sliceTokens, matches } = options;
  const waiting = chosen(turn, sequences, options);
  const { tokens: prompt, cache } = waiting.request;
  const reuse = canReuse && cache.read;
  const others = [...queue].flatMap(({ request }) => (request === waiting.request ? [] : [request]));
  const lost = canReuse ? new WaitingMatches(others, sequences, matches).lost : () => 0;
  const placement = place(sequences, { prompt, salt: cache.salt, reuse, sliceTokens, lost });
  return placement === undefined ? undefined : { waiting, tenant: turn.tenant, placement };
}

/** The one with the fewest tokens left to compute, the oldest of several; at times the oldest of all. */
function chosen(
  { values, value, taken }: Turn<Waiting>,
  sequences: readonly Sequence[],
  options: AdmissionOptions,
): Waiting {
  const { canReuse, matches, storedTokens } = options;
  if (!canReuse || values.length === 1 || taken % turnsOfOldest === turnsOfOldest - 1) return value;
  let best = { waiting: value, left: Infinity };
  for (const waiting of values) {
    const { request } = waiting;
    const resident = Math.max(...sequences.map((sequence) => matches.of(request, sequence)));
    const left = request.tokens.length - Math.max(resident, storedTokens(request));
    if (left < best.left) best = { waiting, left };
  }
  return best.waiting;
}

function isOf(tenant: string, { generation }: Sequence): boolean {
  return generation !== undefined && tenantOf(generation.request) === tenant;
}
