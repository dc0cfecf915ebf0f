/** What docs/library.md takes as given for events: a cache in which something is stored, and a router, which ends when it has heard of that. */
import { type CacheEvent, type ChunkEvent, openCache } from "reprise";

export const cache = await openCache({ name: "router", memoryBytes: 64 * 2 ** 20, bytesPerToken: 16 });
const save = (first: number) =>
  cache.save(
    Uint32Array.from({ length: 600 }, (_, index) => first + index),
    (_firstToken, tokenCount, into) => into.fill(1, 0, tokenCount * 16).length,
  );
await save(0);
setTimeout(() => void save(1), 10);

const known = new Set<string>();
export function note(key: ChunkEvent["key"], _tier: ChunkEvent["tier"]): void {
  known.add(key);
}
export function apply(event: CacheEvent): void {
  if (event.kind !== "cleared") known.add(event.key);
  if (known.size === 6) void cache.close();
}
export function forgetAllAndRead(held: Iterable<Pick<ChunkEvent, "key" | "tier">>): void {
  known.clear();
  for (const { key, tier } of held) note(key, tier);
}
