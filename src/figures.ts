/**
 * Figures: numbers that a part of the program shows to others. Names and meanings are kept in a table beside what keeps the
 * numbers; who shows them (http/cache-metrics.ts, the docs) knows tables, not their owners.
 */

/** One row of such a table. `Source` is what its values are read from. */
export interface Figure<Source> extends FigureHead {
  /** Now: a number, or with labels one for each of their values; undefined where there is none. */
  readonly read: (source: Source) => number | undefined | Iterable<readonly [Labels, value: number | undefined]>;
}

export interface FigureHead {
  /** As Prometheus has it: its unit comes last, or before `_total`. */
  readonly name: string;
  /** A counter never goes down while its owner lives. */
  readonly kind: "counter" | "gauge";
  readonly help: string;
  /** What its values are told apart by, where there are several. */
  readonly label?: Labels;
}

/** Names of labels, or their values in that order. */
export type Labels = string | readonly string[];

/** Figures with what they are read from. */
export interface FigureSource {
  readonly figures: readonly FigureHead[];
  /** Gives every value that there is now. */
  visit(visitor: (figure: string, value: number, label?: Labels) => void): void;
}

/** @param source what all the figures are read from, asked for once in each visit */
export function figureSource<Source>(figures: readonly Figure<Source>[], source: () => Source): FigureSource {
  return {
    figures,
    visit(visitor) {
      const from = source();
      for (const { name, read } of figures) {
        const value = read(from);
        if (typeof value === "number") visitor(name, value);
        else for (const [label, one] of value ?? []) if (one !== undefined) visitor(name, one, label);
      }
    },
  };
}

/** `lookedUpTokens` as Prometheus writes it: `looked_up_tokens`. */
export function snakeCase(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}
