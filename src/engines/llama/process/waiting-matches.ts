/**
 * What those who wait hold in the sequences: each has the sequence that holds most of its conversation, and would compute anew what
 * is lost of it there.
 */
import type { EngineRequest } from "../messages.ts";
import type { ResidentMatches } from "./resident-matches.ts";
import type { Sequence } from "./sequence.ts";

/** Fewer tokens make no conversation: what many texts begin with is held in many sequences. */
const worthwhileTokens = 64;

interface Held {
  readonly tokens: number;
  /** The most that another sequence holds of it. */
  readonly elsewhere: number;
}

export class WaitingMatches {
  readonly #held = new Map<Sequence, Held[]>();

  constructor(requests: readonly EngineRequest[], sequences: readonly Sequence[], matches: ResidentMatches) {
    for (const request of requests) {
      let best: { sequence: Sequence; held: Held } | undefined;
      for (const sequence of sequences) {
        const tokens = matches.of(request, sequence);
        const most = best?.held.tokens ?? 0;
        if (tokens > most) best = { sequence, held: { tokens, elsewhere: most } };
        else if (best !== undefined) best.held = { tokens: most, elsewhere: Math.max(tokens, best.held.elsewhere) };
      }
      if (best === undefined) continue;
      const held = this.#held.get(best.sequence);
      if (held === undefined) this.#held.set(best.sequence, [best.held]);
      else held.push(best.held);
    }
  }

  /** Tokens that one of them would have to compute anew if the sequence kept only its first `kept`; 0 when that is no matter. */
  readonly lost = (sequence: Sequence, kept: number): number => {
    const most = (this.#held.get(sequence) ?? []).reduce(
      (most, { tokens, elsewhere }) => Math.max(most, tokens - Math.max(elsewhere, kept)),
      0,
    );
    return most < worthwhileTokens ? 0 : most;
  };
}
