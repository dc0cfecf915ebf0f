/** Whose a root is: told by the first request that names it, and never changed after that. */
import type { ChunkId } from "../index/chunk-id.ts";
import type { TenantName } from "../../identity/keys.ts";
import type { RootIndex } from "../index/stored-chunk.ts";
import type { VictimsParts } from "./victims.ts";

/** Makes what the root has in the pool, from before anybody asked for it, the named tenant's. */
export function setOwner(
  index: RootIndex,
  name: TenantName | undefined,
  { chunks, policy, tenants }: VictimsParts,
): void {
  const before = index.owner.tenant;
  const moved: ChunkId[] = [];
  if (name !== undefined && tenants.bytesOf(before) > 0)
    for (const chunk of index.tree.nodes()) if (chunks.hasSlots(chunk)) moved.push(chunk);
  const offered = moved.filter((chunk) => policy.isOffered(chunk));
  for (const chunk of offered) policy.withdraw(chunk, before);
  for (const chunk of moved) tenants.changed(before, -chunks.bytesInPool(chunk), -chunks.slotsOf(chunk));
  chunks.setOwner(index, name);
  const { tenant } = index.owner;
  for (const chunk of moved) tenants.changed(tenant, chunks.bytesInPool(chunk), chunks.slotsOf(chunk));
  for (const chunk of offered) policy.offer(chunk, tenant);
}
