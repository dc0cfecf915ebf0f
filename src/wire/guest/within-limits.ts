/**
 * What a message can carry. A cache ends the connection of whoever sends anything else, and with it the hits of all who share
 * it: so whatever does not fit is brought within the limits, or refused for that request alone, before it is sent.
 */
import type { ReadOptions } from "../../session.ts";
import type { SpaceDescription } from "../../identity/space.ts";
import { RepriseError } from "../../errors.ts";
import { maxListed, maxTextCharacters } from "../protocol.ts";

/** Nanoseconds on the wire; 0 stands for "not known". */
export function costField({ computeMsPerToken = 0 }: ReadOptions): { readonly computeNs: number } {
  return { computeNs: wholeNumber(computeMsPerToken * 1e6) };
}

/** The number as the wire can carry it: whole, from 0 to `limit`; 0 for what is no number. */
export function wholeNumber(value: number, limit = Number.MAX_SAFE_INTEGER): number {
  return Math.min(limit, Math.max(0, Math.ceil(value) || 0));
}

/** As many lists as the items need, each as long as a message holds. */
export function listsOf<T>(items: readonly T[]): T[][] {
  const lists: T[][] = [];
  for (let first = 0; first < items.length; first += maxListed) lists.push(items.slice(first, first + maxListed));
  return lists;
}

/** The cache would close the connection without a word. @throws RepriseError BAD_REQUEST */
export function mustFit({
  space,
  token = "",
  model = "",
}: {
  readonly space: SpaceDescription | null;
  readonly token?: string;
  readonly model?: string | undefined;
}): void {
  const texts: [name: string, value: unknown][] = Object.entries({ ...space, token, model });
  for (const [name, value] of texts)
    if (typeof value === "string" && (value.length > maxTextCharacters || /\p{Surrogate}/u.test(value)))
      throw new RepriseError(
        "BAD_REQUEST",
        `${name} must be a text of at most ${maxTextCharacters} whole characters to be sent to a cache`,
        { field: name },
      );
}
