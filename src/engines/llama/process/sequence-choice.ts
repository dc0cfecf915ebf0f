/**
 * Which sequence serves a request, and what of its prompt is in the engine already.
 */
import type { Tokens } from "../../../identity/tokens.ts";
import type { Sequence } from "./sequence.ts";

export interface Placement {
  readonly sequence: Sequence;
  /** Tokens of the prompt whose KV the sequence will start with. */
  readonly prefix: number;
  /** Where they are shared from, when not the sequence itself. */
  readonly donor: Sequence | undefined;
}

export interface PlacementOptions {
  readonly prompt: Tokens;
  readonly salt: string;
  /** False: nothing resident may be used (the family refuses, or the request does). */
  readonly reuse: boolean;
  /** Deterministic mode: reuse whole slices of this many tokens only, and of the sequence's own. */
  readonly sliceTokens: number | undefined;
}

/**
 * The best free sequence for a prompt; undefined when all are busy. The longest common prefix wins, wherever it is: an idle
 * sequence that loses little by it is extended in place; otherwise the prefix is shared into the sequence used longest ago.
 */
export function place(sequences: readonly Sequence[], options: PlacementOptions): Placement | undefined {
  const idle = sequences.filter((sequence) => sequence.generation === undefined);
  if (idle.length === 0) return undefined;
  const oldest = leastRecent(idle);
  if (!options.reuse) return { sequence: oldest, prefix: 0, donor: undefined };

  const own = longest(idle, options);
  if (options.sliceTokens !== undefined) {
    return own.prefix > 0 ? { ...own, donor: undefined } : { sequence: oldest, prefix: 0, donor: undefined };
  }
  const isShared = sequences.every(({ context }) => context === oldest.context && context.isShareable);
  const all = isShared ? longest(sequences, options) : own;
  const shares = isShared && all.prefix - own.prefix >= oldest.context.leastShared;
  const any = shares ? all : own;
  const extendable = own.prefix >= any.prefix && 2 * own.prefix >= own.sequence.count;
  if (own.prefix > 0 && extendable) return { ...own, donor: undefined };
  if (any.prefix === 0) return { sequence: oldest, prefix: 0, donor: undefined };
  // Elsewhere nothing can be shared without copying it, or it is not worth it: it is loaded from the cache, copied (neighbours.ts) or computed.
  if (!shares && any.sequence !== oldest) return { sequence: oldest, prefix: 0, donor: undefined };
  return any.sequence === oldest
    ? { sequence: oldest, prefix: any.prefix, donor: undefined }
    : { sequence: oldest, prefix: any.prefix, donor: any.sequence };
}

function longest(sequences: readonly Sequence[], options: PlacementOptions): { sequence: Sequence; prefix: number } {
  let best = { sequence: sequences[0]!, prefix: -1 }; // callers pass at least one
  for (const sequence of sequences) {
    const prefix = reusable(sequence, options);
    if (prefix > best.prefix) best = { sequence, prefix };
  }
  return best;
}

/** Tokens of the prompt that others may have from a sequence. At most all but the last one: its logits must be computed. */
export function reusable(sequence: Sequence, options: PlacementOptions): number {
  const { prompt, sliceTokens } = options;
  const { generation } = sequence;
  if (generation !== undefined && !generation.request.cache.save) return 0;
  const common = Math.min(sequence.common(prompt, options.salt), prompt.length - 1);
  if (sliceTokens === undefined) return common;
  return Math.floor(Math.min(common, sequence.reproducibleCount) / sliceTokens) * sliceTokens;
}

/** The sequence used longest ago; an empty one before all others. */
function leastRecent(sequences: readonly Sequence[]): Sequence {
  return sequences.reduce((best, sequence) => {
    if ((sequence.count === 0) !== (best.count === 0)) return sequence.count === 0 ? sequence : best;
    return sequence.lastUsed < best.lastUsed ? sequence : best;
  });
}
