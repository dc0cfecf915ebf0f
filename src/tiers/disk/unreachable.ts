/**
 * Which records of a directory nobody can reach, told from the records alone, when there is no cache that knows: the copies
 * of a rewrite that a crash cut short, and tails that a longer chunk of the same text has replaced.
 */
import { tokenBytes } from "../../identity/tokens.ts";
import type { RecordId, StoredRecord } from "../../tier.ts";

interface Sibling {
  readonly id: RecordId;
  /** One character a byte. */
  readonly tokens: string;
}

/** @param records those of one space or of several, the older first; of two of one key the first stays, as in the cache */
export async function unreachableRecords(records: AsyncIterable<StoredRecord>): Promise<RecordId[]> {
  const keys = new Set<string>();
  const unreachable: RecordId[] = [];
  /** By parent. */
  const families = new Map<string, Sibling[]>();
  for await (const { id, space, key, parent, tokens } of records) {
    const name = `${space.slice(0, 16)}${key.slice(0, 32)}`; // 192 bits: as good as the whole, and smaller
    if (keys.has(name)) {
      unreachable.push(id);
      continue;
    }
    keys.add(name);
    const family = `${space.slice(0, 16)}${parent.slice(0, 32)}`;
    const siblings = families.get(family) ?? [];
    families.set(family, siblings);
    siblings.push({ id, tokens: Buffer.from(tokenBytes(tokens)).toString("latin1") });
  }
  for (const siblings of families.values()) unreachable.push(...replacedTails(siblings));
  return unreachable;
}

/** Those of which another begins with all of their tokens: in order, that one comes right behind. */
function replacedTails(siblings: Sibling[]): RecordId[] {
  if (siblings.length < 2) return [];
  siblings.sort((a, b) => (a.tokens < b.tokens ? -1 : 1));
  return siblings.filter(({ tokens }, i) => siblings[i + 1]?.tokens.startsWith(tokens)).map(({ id }) => id);
}
