/**
 * What one more row costs a step that computes a token anyway, in proportion to that step. A GPU, or a large model, reads its weights once
 * for all rows: hardly anything. A small model on a few cores: half a step. Whether drafts are worth computing hangs on it.
 */
export interface RowCost {
  readonly share: number;
  /** A step with drafts took so much longer for each of them. */
  measured(share: number): void;
}

/** Until something is measured. */
const guess = 0.25;
/** How much of a measurement is believed. */
const believed = 0.1;
/** A step that met another program on the machine says little. */
const mostShare = 1.5;

/** The cost as steps have told. */
export class MeasuredRowCost implements RowCost {
  #share = guess;

  get share(): number {
    return this.#share;
  }

  measured(share: number): void {
    const counted = Math.min(mostShare, Math.max(0, share));
    this.#share += (counted - this.#share) * believed;
  }
}
