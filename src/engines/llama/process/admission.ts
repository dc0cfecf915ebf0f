/**
 * Who gets the sequence that is free: decides, and moves nothing.
 */
import type { EngineRequest } from "../messages.ts";
import type { TurnQueue } from "../turn-queue.ts";
import { tenantOf } from "./generation.ts";
import { place } from "./sequence-choice.ts";
import type { Placement } from "./sequence-choice.ts";
import type { Sequence } from "./sequence.ts";

/** A request that waits for a sequence. */
export interface Waiting {
  readonly request: EngineRequest;
  /** When it came, in ms. */
  readonly accepted: number;
}

export interface Admission extends Waiting {
  readonly tenant: string;
  readonly placement: Placement;
}

export interface AdmissionOptions {
  /** May KV be reused at all? */
  readonly canReuse: boolean;
  /** Deterministic mode: reuse whole slices of this many tokens only. */
  readonly sliceTokens: number | undefined;
}

/** The next request, which is of the tenant with the fewest sequences; undefined when nobody waits or no sequence is free. */
export function nextAdmission(
  waiting: TurnQueue<Waiting>,
  sequences: readonly Sequence[],
  { canReuse, sliceTokens }: AdmissionOptions,
): Admission | undefined {
  const next = waiting.next((tenant) => sequences.filter((sequence) => isOf(tenant, sequence)).length);
  if (next === undefined) return undefined;
  const { tokens: prompt, cache } = next.value.request;
  const reuse = canReuse && cache.read;
  const placement = place(sequences, { prompt, salt: cache.salt, reuse, sliceTokens });
  return placement === undefined ? undefined : { ...next.value, tenant: next.tenant, placement };
}

function isOf(tenant: string, { generation }: Sequence): boolean {
  return generation !== undefined && tenantOf(generation.request) === tenant;
}
