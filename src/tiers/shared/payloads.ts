/** What shared tiers do with the payloads of a record, in the memory that they are read into. */
import type { PartMemory } from "../../tier.ts";
import type { Head } from "./head.ts";

/** What all gave, when all have ended: none touches the slots' memory any more, also where one has failed. */
export async function allEnded<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return Promise.all(works);
}

/** Every view that is wanted is as long as its payload, or as that padded to whole pages. */
export function fits({ record: { payloadBytes } }: Head, into: PartMemory): boolean {
  if (payloadBytes.length !== into.length) return false;
  return payloadBytes.every((bytes, part) => {
    const room = into[part]?.length ?? bytes;
    return room === bytes || room === Math.ceil(bytes / 4096) * 4096;
  });
}

/** In place. @param pieces of the payload, in order; false: it is not what was sealed */
export function unseal(head: Head, part: number, payload: Uint8Array, pieces: readonly Uint8Array[]): boolean {
  const { by, tags } = head.sealed!; // whoever asks knows
  const opening = by.opening(part + 1, tags[part]!, Buffer.from(head.id, "hex"));
  let at = 0;
  for (const piece of pieces) {
    payload.set(opening.open(piece), at);
    at += piece.length;
  }
  return opening.end();
}
