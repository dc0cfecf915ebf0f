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
  /** Tokens that others who wait lose with what a sequence holds beyond its first `kept`. */
  readonly lost: (sequence: Sequence, kept: number) => number;
}

/** What a request may have of a sequence hangs on these. */
export type ReuseOptions = Omit<PlacementOptions, "lost">;

/**
 * The best free sequence for a prompt; undefined when all are busy. The longest common prefix wins, wherever it is: an idle
 * sequence that loses little by it is extended in place; otherwise the prefix is shared into the sequence that is missed least.
 */
export function place(sequences: readonly Sequence[], options: PlacementOptions): Placement | undefined {
  const { lost } = options;
  const idle = sequences.filter((sequence) => sequence.generation === undefined);
  if (idle.length === 0) return undefined;
  const spare = leastMissed(idle, options);
  if (!options.reuse) return { sequence: spare, prefix: 0, donor: undefined };

  const own = longest(idle, options);
  // Somebody who waits goes on with it, and another one would do.
  const isMissed = lost(own.sequence, own.prefix) > lost(spare, 0);
  if (options.sliceTokens !== undefined) {
    return own.prefix > 0 && !isMissed
      ? { ...own, donor: undefined }
      : { sequence: spare, prefix: 0, donor: undefined };
  }
  const isShared = sequences.every(({ context }) => context === spare.context && context.isShareable);
  const all = isShared ? longest(sequences, options) : own;
  const shares = isShared && all.prefix - own.prefix >= spare.context.leastShared;
  const any = shares ? all : own;
  const extendable = own.prefix >= any.prefix && 2 * own.prefix >= own.sequence.count && !isMissed;
  if (own.prefix > 0 && extendable) return { ...own, donor: undefined };
  if (any.prefix === 0) return { sequence: spare, prefix: 0, donor: undefined };
  // Elsewhere nothing can be shared without copying it, or it is not worth it: it is loaded from the cache, copied (neighbours.ts) or computed.
  if (!shares && any.sequence !== spare) return { sequence: spare, prefix: 0, donor: undefined };
  return any.sequence === spare
    ? { sequence: spare, prefix: any.prefix, donor: undefined }
    : { sequence: spare, prefix: any.prefix, donor: any.sequence };
}

/** Of several that hold as much of it, the one that is missed least. */
function longest(sequences: readonly Sequence[], options: PlacementOptions): { sequence: Sequence; prefix: number } {
  let best = { sequence: sequences[0]!, prefix: -1 }; // callers pass at least one
  for (const sequence of sequences) {
    const prefix = reusable(sequence, options);
    const isBetter = prefix === best.prefix && options.lost(sequence, prefix) < options.lost(best.sequence, prefix);
    if (prefix > best.prefix || isBetter) best = { sequence, prefix };
  }
  return best;
}

/** Tokens of the prompt that others may have from a sequence. */
export function reusable(sequence: Sequence, options: ReuseOptions): number {
  return usable(sequence, sequence.common(options.prompt, options.salt), options);
}

/** Of so many common tokens, those that others may have. At most all of the prompt but the last one: its logits must be computed. */
export function usable(
  sequence: Sequence,
  commonTokens: number,
  { prompt, sliceTokens }: Pick<ReuseOptions, "prompt" | "sliceTokens">,
): number {
  const { generation } = sequence;
  if (generation !== undefined && !generation.request.cache.save) return 0;
  const common = Math.min(commonTokens, prompt.length - 1);
  if (sliceTokens === undefined) return common;
  return Math.floor(Math.min(common, sequence.reproducibleCount) / sliceTokens) * sliceTokens;
}

/** An empty sequence before all others; then one that nobody waits for; of several, the one used longest ago. */
function leastMissed(sequences: readonly Sequence[], { lost }: PlacementOptions): Sequence {
  return sequences.reduce((best, sequence) => {
    if ((sequence.count === 0) !== (best.count === 0)) return sequence.count === 0 ? sequence : best;
    const more = lost(sequence, 0) - lost(best, 0);
    if (more !== 0) return more < 0 ? sequence : best;
    return sequence.lastUsed < best.lastUsed ? sequence : best;
  });
}
