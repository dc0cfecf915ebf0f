/**
 * A guest whose model has attention and recurrent layers, without a model: group 0 is rows, group 1 snapshots. Its rows tell a
 * chunk's tokens, and its snapshot the whole text before it, so that a wrong one is seen.
 */
import { bareRoot, type Root } from "../../src/identity/keys.ts";
import type { GroupKind, SpaceDescription } from "../../src/identity/space.ts";
import type { Tokens } from "../../src/identity/tokens.ts";
import type { CacheSession, LoadedPart } from "../../src/session.ts";
import { payloadOf, type SlotMemory, testSpace, wait } from "./cache.ts";

export const hybridGroups = ["rows", "snapshot"] as const satisfies readonly GroupKind[];
export const hybridSlotBytes = [8192, 16_384];
const payloadBytes = [512, 9000];

export function hybridSpace(change: Partial<SpaceDescription> = {}): SpaceDescription {
  return testSpace({ attention: "hybrid", groups: hybridGroups, ...change });
}

/** What a part of a text's chunk must hold. */
function expected(tokens: Tokens, { group, firstToken, tokenCount }: Place, rank: number): Uint8Array {
  const text = tokens.subarray(group === 1 ? 0 : firstToken, firstToken + tokenCount);
  return payloadOf(text, firstToken + group, rank, payloadBytes[group]);
}

type Place = Pick<LoadedPart, "group" | "firstToken" | "tokenCount">;

/** Stores what is missing of `tokens`, and the snapshot at their end. @returns how many parts of each group */
export async function saveHybrid(
  session: CacheSession,
  memory: SlotMemory,
  tokens: Tokens,
  { root = bareRoot, rank = 0 }: { root?: Root; rank?: number } = {},
): Promise<number[]> {
  const { parts } = await session.reserve(root, tokens, wait);
  const written = parts.map(({ lease, slot, ...place }) => {
    const payload = expected(tokens, place, rank);
    memory.view(slot.offset, payload.length).set(payload);
    return { lease, bytes: payload.length };
  });
  await session.commit(written, wait);
  return hybridGroups.map((_, group) => parts.filter((part) => part.group === group).length);
}

export interface HybridLoad {
  /** Tokens that the guest can go on from; 0 when no snapshot came. */
  readonly tokens: number;
  readonly partsByGroup: readonly number[];
}

/** Loads `tokens`, checks every byte, and takes only what a recurrent layer can use: up to a snapshot that came. */
export async function loadHybrid(
  session: CacheSession,
  memory: SlotMemory,
  tokens: Tokens,
  { root = bareRoot, rank = 0 }: { root?: Root; rank?: number } = {},
): Promise<HybridLoad> {
  const partsByGroup = hybridGroups.map(() => 0);
  let rowsEnd = 0;
  let end = 0;
  for await (const batch of session.load(root, tokens, 0, wait)) {
    for (const part of batch) {
      const actual = memory.view(part.slot.offset, part.slot.bytes);
      if (Buffer.compare(actual, expected(tokens, part, rank)) !== 0)
        throw new Error(`group ${part.group} of the chunk at ${part.firstToken} has another's bytes`);
      partsByGroup[part.group]! += 1; // one per group
      if (part.group === 0) rowsEnd = part.target + part.take;
      else end = part.firstToken + part.tokenCount;
    }
    session.release(batch.map(({ lease }) => lease));
  }
  if (end !== 0 && end !== rowsEnd) throw new Error(`a snapshot at ${end} came with rows up to ${rowsEnd}`);
  return { tokens: end, partsByGroup };
}
