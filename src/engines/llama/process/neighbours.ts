/**
 * Beginnings that requests share: what a neighbour holds of a prompt is taken over.
 *
 * The cache knows whole chunks of what was answered, and is asked first. This finds the rest: the tokens of a chunk that is
 * not full, chats that branch early, and what a request beside this one has just computed. Where sequences can have the same
 * cells nothing is copied. Elsewhere it goes piece by piece through one buffer, as long as copying a token takes less time than
 * computing it, which is measured as it runs.
 */
import { constants } from "node:buffer";
import type { Generation } from "./generation.ts";
import type { ResidentMatches } from "./resident-matches.ts";
import { RestoredPrefix } from "./restored-prefix.ts";
import type { Sequence } from "./sequence.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";

export interface NeighboursOptions {
  readonly sequences: readonly Sequence[];
  readonly layout: PayloadLayout;
  readonly matches: ResidentMatches;
  /** Deterministic mode: whole slices of this many tokens only. */
  readonly sliceTokens: number | undefined;
  /** The measured cost of computing a token, in milliseconds. */
  readonly computeMsPerToken: () => number;
}

/** Memory that is kept between copies. */
const keptBytes = 64 * 2 ** 20;
/** Copying holds up everybody else's next token: it pauses after this long. */
const copyMs = 20;
/** How much of a new measurement is believed, and how fast a bad one is forgotten. */
const believed = 0.3;
const forgotten = 0.9;

export class Neighbours {
  readonly #options: NeighboursOptions;
  /** Of a piece: a buffer has so many bytes at most, and a long text's KV has more. */
  readonly #mostTokens: number;
  #buffer = new Uint8Array();
  /** For each token that is moved. */
  #copyMsPerToken = 0;

  constructor(options: NeighboursOptions) {
    this.#options = options;
    this.#mostTokens = Math.floor(constants.MAX_LENGTH / payloadBytes(options.layout, 1));
  }

  /** Appends what neighbours hold of the generation's prompt beyond what its sequence holds. */
  async takeInto(sequence: Sequence, generation: Generation): Promise<void> {
    const started = performance.now();
    let pauseAt = started + copyMs;
    while (!generation.cancelled && (await this.#copyPiece(sequence, generation))) {
      if (performance.now() < pauseAt) continue;
      await new Promise((resolve) => setImmediate(resolve));
      pauseAt = performance.now() + copyMs;
    }
    generation.loadMs += performance.now() - started;
  }

  /** A neighbour may go on between two pieces: each is looked for anew. @returns false when there is nothing more. */
  async #copyPiece(sequence: Sequence, generation: Generation): Promise<boolean> {
    const { sliceTokens, layout, sequences, matches } = this.#options;
    const from = sequence.count;
    let best = { donor: sequence, held: from };
    for (const donor of sequences) {
      if (donor === sequence) continue;
      const held = matches.of(generation.request, donor);
      if (held > best.held) best = { donor, held };
    }
    if (best.held > from && canShare(best.donor, sequence)) {
      if (!this.isWorthTaking(best.donor, sequence, best.held)) return false;
      sequence.shareFrom(best.donor, best.held);
      generation.countReused("resident", best.held - from);
      return true;
    }
    const { pieceTokens } = best.donor.context.copies;
    const tokens = Math.min(best.held - from, sliceTokens ?? Math.min(pieceTokens, this.#mostTokens));
    const to = from + tokens;
    if (tokens === 0) return false;
    if (!this.isWorthTaking(best.donor, sequence, to)) {
      this.#copyMsPerToken *= forgotten; // one slow copy is not the last word
      return false;
    }
    const moved = movedTokens(sequence, to);
    const started = performance.now();
    const by = this.#roomFor(payloadBytes(layout, tokens));
    if (!(await copy(best.donor, sequence, { to, by }))) {
      if (sequence.count < from) generation.forgetReused();
      return false;
    }
    if (sliceTokens !== undefined) sequence.markReproducible();
    generation.countReused("resident", tokens);
    this.#copyMsPerToken += believed * ((performance.now() - started) / moved - this.#copyMsPerToken);
    return true;
  }

  /** Would a sequence have what another holds, up to position `to`, sooner than it computes that? As far as is known. */
  isWorthTaking(donor: Sequence, into: Sequence, to: number): boolean {
    if (canShare(donor, into)) return to - into.count >= into.context.leastShared;
    const copyMs = this.#copyMsPerToken * movedTokens(into, to);
    return copyMs < (to - into.count) * this.#options.computeMsPerToken();
  }

  /** Kept for the next piece, unless it is that of a whole text. */
  #roomFor(bytes: number): Uint8Array {
    if (bytes > keptBytes) return new Uint8Array(bytes);
    if (this.#buffer.length < bytes) this.#buffer = new Uint8Array(bytes);
    return this.#buffer;
  }
}

function canShare(one: Sequence, other: Sequence): boolean {
  return one.context === other.context && one.context.isShareable;
}

/** Tokens whose KV a copy up to position `to` moves. */
function movedTokens(into: Sequence, to: number): number {
  return into.context.copies.movedTokens(into.id, into.count, to);
}

/** Copies what `donor` holds from the other's end up to position `to`. @returns false when it does not fit */
async function copy(
  donor: Sequence,
  into: Sequence,
  { to, by }: { readonly to: number; readonly by: Uint8Array },
): Promise<boolean> {
  const from = into.count;
  const tokens = donor.held.slice(0, to);
  const bytes = donor.context.copies.save(donor.id, from, to, by);
  if (bytes === 0) return false;
  const prefix = await RestoredPrefix.begin(into, tokens);
  const added = prefix.add(by.subarray(0, bytes), { tokenCount: to - from, to });
  return prefix.end() && added === "restored";
}
