/**
 * What the cache knows of its chunks' bytes: where they are and who keeps them there. The facts themselves lie in the
 * {@link ChunkTable}; here they are put into words.
 *
 *     slot(part)      undefined ──allocate──► offset ──evict──► undefined
 *     bytes(part)     0 ──commit──► payload length      all rows written: the chunk is visible from then on
 *     record(tier)    the same bytes below the pool
 *
 * A snapshot may be missing, or come when the rows are recorded already. Until the chunk has been written anew such a record
 * *lacks* it: good for the rows, and not for a text's end.
 */
import type { ChunkRecord, Tier, TierName } from "../../tier.ts";
import { assert } from "../../errors.ts";
import { noChunk, type ChunkId } from "./chunk-id.ts";
import { KeyIndex } from "./key-index.ts";
import { ChunkTable, field, flag, type RowShape } from "./chunk-table.ts";
import { chunkKey, type ChunkKey, type RootKey, type TenantName } from "../../identity/keys.ts";
import { type Tokens } from "../../identity/tokens.ts";
import { RadixTree } from "./radix.ts";
import { groupsOf, type SpaceDescription, type SpaceId } from "../../identity/space.ts";

/** What a chunk is told from others by, also after it left the index and came back. */
export interface ChunkTraits {
  /** 32 bits of the chunk's key. */
  readonly fingerprint: number;
  /** Position of the first token in the text. */
  readonly firstToken: number;
}

/** The bit of {@link field.snapshots} that is no tier's. */
const reading = 1 << 31;

/** What is read of a chunk: snapshots only where a text ends. */
export type Wanted = "rows" | "all";

/** A space whose chunks are in the table. */
export interface IndexedSpace {
  readonly id: SpaceId;
  readonly description: SpaceDescription;
  readonly shape: RowShape;
}

/** One root of one space, with its index. */
export interface RootIndex {
  readonly space: SpaceId;
  readonly description: SpaceDescription;
  readonly key: RootKey;
  /** What rows name their root by. */
  readonly number: number;
  /** Whose chunks these are for eviction: the root's own, unless the first request for it names a tenant. */
  readonly owner: { tenant: number; isKnown: boolean; name?: TenantName };
  readonly tree: RadixTree;
}

export class StoredChunks {
  readonly table = new ChunkTable();
  /** Told when a chunk's rows can be read from now on, or no longer; its text is in the index then. */
  onVisible: ((chunk: ChunkId, isVisible: boolean) => void) | undefined;
  /** From fast to slow; a tier's place is its number in a row. */
  readonly tiers: readonly Tier[];
  readonly #keys: KeyIndex | undefined;
  readonly #roots = new Map<number, RootIndex>();
  /** Tenants that were named, and how many roots they have. */
  readonly #tenants = new Map<TenantName, { readonly number: number; roots: number }>();
  /** Of roots and of tenants: a root that is a tenant by itself has one number as both. */
  #lastNumber = 0;

  constructor(tiers: readonly Tier[], { foundByKey = false }: { readonly foundByKey?: boolean } = {}) {
    this.tiers = tiers;
    this.#keys = foundByKey ? new KeyIndex(this.table) : undefined;
  }

  /** What rows of a space look like; asked for once per space. */
  shape(space: Pick<SpaceDescription, "chunkTokens" | "tensorParallel" | "groups">): RowShape {
    const parts = Array.from({ length: space.tensorParallel }, () => groupsOf(space)).flat();
    return this.table.shape({ chunkTokens: space.chunkTokens, parts, tiers: this.tiers.length });
  }

  /** A root without chunks. @returns undefined when the index is full */
  makeRoot(space: IndexedSpace, key: RootKey): RootIndex | undefined {
    const { id, description, shape } = space;
    const number = this.#lastNumber + 1;
    const tree = RadixTree.make(this.table, shape, number);
    if (tree === undefined) return undefined;
    this.#lastNumber = number;
    const owner = { tenant: number, isKnown: false };
    const index = { space: id, description, key, number, owner, tree };
    this.#roots.set(number, index);
    return index;
  }

  /** Says whose a root is, the first time; what is said later changes nothing. */
  setOwner({ owner }: RootIndex, name: TenantName | undefined): void {
    if (owner.isKnown) return;
    owner.isKnown = true;
    if (name === undefined) return;
    let tenant = this.#tenants.get(name);
    if (tenant === undefined) this.#tenants.set(name, (tenant = { number: (this.#lastNumber += 1), roots: 0 }));
    tenant.roots += 1;
    owner.tenant = tenant.number;
    owner.name = name;
  }

  /** Forgets a root without chunks. */
  dropRoot(index: RootIndex): void {
    index.tree.dispose();
    this.#roots.delete(index.number);
    const { name } = index.owner;
    const tenant = name === undefined ? undefined : this.#tenants.get(name);
    if (name === undefined || tenant === undefined) return;
    tenant.roots -= 1;
    if (tenant.roots === 0) this.#tenants.delete(name);
  }

  rootOf(chunk: ChunkId): RootIndex {
    return this.#roots.get(this.table.get(chunk, field.root))!; // a root lives as long as its chunks
  }

  tenantOf(chunk: ChunkId): number {
    return this.rootOf(chunk).owner.tenant;
  }

  /** The chunk before it; for the first one the top of its tree, whose own parent is `noChunk`. */
  parentOf(chunk: ChunkId): ChunkId {
    return this.table.link(chunk, field.parent);
  }

  /** Position of the chunk's first token in the text. */
  firstToken(chunk: ChunkId): number {
    return this.table.get(chunk, field.firstToken);
  }

  tokenCount(chunk: ChunkId): number {
    return this.table.tokenCount(chunk);
  }

  /** The chunk's tokens, in place: not to be kept. */
  tokens(chunk: ChunkId): Tokens {
    return this.table.tokens(chunk);
  }

  /** Parts of a chunk, those that it lacks included. */
  partsOf(chunk: ChunkId): number {
    return this.table.shapeOf(chunk).parts.length;
  }

  isSnapshot(chunk: ChunkId, part: number): boolean {
    return this.table.shapeOf(chunk).parts[part] === "snapshot";
  }

  slot(chunk: ChunkId, part: number): number | undefined {
    return this.table.slot(chunk, part);
  }

  /** Payload length of one part; 0 until it was written. */
  bytes(chunk: ChunkId, part: number): number {
    return this.table.bytes(chunk, part);
  }

  /** Payload lengths of all parts. */
  payloadBytes(chunk: ChunkId): number[] {
    return Array.from({ length: this.partsOf(chunk) }, (_, part) => this.table.bytes(chunk, part));
  }

  /** Their sum, of all ranks: what loading the chunk moves, with its snapshots when a text ends here. */
  bytesToLoad(chunk: ChunkId, what: Wanted): number {
    const { parts, hasSnapshots } = this.table.shapeOf(chunk);
    let sum = 0;
    for (let part = 0; part < parts.length; part += 1)
      if (!hasSnapshots || what === "all" || parts[part] === "rows") sum += this.table.bytes(chunk, part);
    return sum;
  }

  setBytes(chunk: ChunkId, part: number, bytes: number): void {
    this.table.setBytes(chunk, part, bytes);
  }

  /** The parts that have a payload. */
  writtenParts(chunk: ChunkId): number[] {
    return this.payloadBytes(chunk).flatMap((bytes, part) => (bytes > 0 ? [part] : []));
  }

  /** Every rank has committed its rows, or a tier had them. */
  isWritten(chunk: ChunkId): boolean {
    const { parts } = this.table.shapeOf(chunk);
    for (let part = 0; part < parts.length; part += 1)
      if (parts[part] === "rows" && this.table.bytes(chunk, part) === 0) return false;
    return true;
  }

  /** The rows can be read, here or below. */
  isVisible(chunk: ChunkId): boolean {
    return this.table.is(chunk, flag.visible);
  }

  setVisible(chunk: ChunkId, value: boolean): void {
    if (this.isVisible(chunk) === value) return;
    this.table.mark(chunk, flag.visible, value);
    this.onVisible?.(chunk, value);
  }

  /** Every rank's rows are readable in the pool. */
  isInMemory(chunk: ChunkId): boolean {
    if (!this.table.is(chunk, flag.visible) || this.table.is(chunk, flag.promoting)) return false;
    const { parts } = this.table.shapeOf(chunk);
    for (let part = 0; part < parts.length; part += 1)
      if (parts[part] === "rows" && this.table.slot(chunk, part) === undefined) return false;
    return true;
  }

  /** The rows can be read, but not in the pool. */
  isBelowMemory(chunk: ChunkId): boolean {
    return this.isVisible(chunk) && !this.isInMemory(chunk);
  }

  /** What a load wants of the chunk can be read in the pool. */
  isReady(chunk: ChunkId, what: Wanted): boolean {
    return this.isInMemory(chunk) && (what === "rows" || this.snapshotTierOf(chunk) === "memory");
  }

  /** All that there is of the chunk can be read in the pool. */
  isWholeInMemory(chunk: ChunkId): boolean {
    if (!this.isInMemory(chunk)) return false;
    const { parts, hasSnapshots } = this.table.shapeOf(chunk);
    if (!hasSnapshots) return true;
    if (this.isReadingSnapshots(chunk)) return false;
    return parts.every((_, part) => this.bytes(chunk, part) === 0 || this.slot(chunk, part) !== undefined);
  }

  /**
   * The fastest place that has the snapshots of all ranks. In a space without any, where all ends are as good, "memory".
   *
   * @returns undefined when a stored prefix cannot end here.
   */
  snapshotTierOf(chunk: ChunkId): TierName | undefined {
    const { parts, hasSnapshots } = this.table.shapeOf(chunk);
    if (!hasSnapshots) return "memory";
    let inMemory = !this.isReadingSnapshots(chunk);
    for (let part = 0; part < parts.length; part += 1) {
      if (parts[part] === "rows") continue;
      if (this.table.bytes(chunk, part) === 0) return undefined;
      inMemory &&= this.table.slot(chunk, part) !== undefined;
    }
    return inMemory ? "memory" : this.#recordTierOf(chunk, "all");
  }

  /** Its snapshots are being read from below. */
  isReadingSnapshots(chunk: ChunkId): boolean {
    return (this.table.get(chunk, field.snapshots) & reading) !== 0;
  }

  setReadingSnapshots(chunk: ChunkId, value: boolean): void {
    this.#setSnapshots(chunk, reading, value);
  }

  /** The record of a tier, by its number, was written when the chunk had fewer snapshots than now. */
  isLacking(chunk: ChunkId, tier: number): boolean {
    return (this.table.get(chunk, field.snapshots) & (1 << tier)) !== 0;
  }

  setLacking(chunk: ChunkId, tier: number, value: boolean): void {
    this.#setSnapshots(chunk, 1 << tier, value);
  }

  /** A snapshot was written: what is recorded of the chunk lacks it. */
  lackSnapshot(chunk: ChunkId): void {
    for (let tier = 0; tier < this.tiers.length; tier += 1)
      if (this.table.record(chunk, tier) !== undefined) this.setLacking(chunk, tier, true);
  }

  hasSlots(chunk: ChunkId): boolean {
    return this.slotsOf(chunk) > 0;
  }

  slotsOf(chunk: ChunkId): number {
    const parts = this.partsOf(chunk);
    let slots = 0;
    for (let part = 0; part < parts; part += 1) if (this.table.slot(chunk, part) !== undefined) slots += 1;
    return slots;
  }

  /** What the chunk takes of the pool. */
  bytesInPool(chunk: ChunkId): number {
    const parts = this.partsOf(chunk);
    let bytes = 0;
    for (let part = 0; part < parts; part += 1)
      if (this.table.slot(chunk, part) !== undefined) bytes += this.table.slotBytes(chunk, part);
    return bytes;
  }

  hasRecords(chunk: ChunkId): boolean {
    for (let tier = 0; tier < this.tiers.length; tier += 1)
      if (this.table.record(chunk, tier) !== undefined) return true;
    return false;
  }

  /** The fastest place that has the chunk's rows. */
  tierOf(chunk: ChunkId): TierName | undefined {
    return this.isInMemory(chunk) ? "memory" : this.#recordTierOf(chunk, "rows");
  }

  /** Every place that has the chunk's rows, the fastest first. */
  tiersOf(chunk: ChunkId): TierName[] {
    const below = this.tiers.filter((_, tier) => this.table.record(chunk, tier) !== undefined).map(({ name }) => name);
    return this.isInMemory(chunk) ? ["memory", ...below] : below;
  }

  /** A slot or a record has gone: parts that were nowhere else are gone with it. */
  forgetUnreadable(chunk: ChunkId): void {
    const { parts, hasSnapshots } = this.table.shapeOf(chunk);
    if (!this.hasRecords(chunk) && !this.isInMemory(chunk)) this.setVisible(chunk, false);
    if (!hasSnapshots || this.#recordTierOf(chunk, "all") !== undefined) return;
    let left = 0;
    for (let part = 0; part < parts.length; part += 1) {
      if (parts[part] === "rows") continue;
      if (this.table.slot(chunk, part) === undefined) this.table.setBytes(chunk, part, 0);
      left += this.table.bytes(chunk, part);
    }
    if (left === 0) this.#setSnapshots(chunk, ~reading, false); // nothing that a record could lack
  }

  /** The chunk's key: hashed when it is first asked for, and those before it that were not yet. */
  key(chunk: ChunkId): ChunkKey {
    const unknown: ChunkId[] = [];
    let at = chunk;
    for (; this.parentOf(at) !== noChunk && !this.table.is(at, flag.keyKnown); at = this.parentOf(at)) unknown.push(at);
    let key = this.#knownKey(at);
    for (const next of unknown.toReversed()) {
      const ofNext = chunkKey(key, this.tokens(next));
      this.setKey(next, ofNext);
      key = ofNext;
    }
    return key as ChunkKey; // `chunk` is no top
  }

  /** Takes over a key that was verified, so that it is not hashed again. */
  setKey(chunk: ChunkId, key: ChunkKey): void {
    if (this.table.is(chunk, flag.keyKnown)) return;
    this.table.keyBytes(chunk).set(Buffer.from(key, "hex"));
    this.table.mark(chunk, flag.keyKnown, true);
    this.#keys?.add(chunk);
  }

  /** The chunk of that key, if its key is known and chunks are found by theirs here. */
  withKey(key: ChunkKey): ChunkId | undefined {
    return this.#keys?.find(key);
  }

  /** The key of the chunk before it, or of the root. */
  parentKey(chunk: ChunkId): ChunkKey | RootKey {
    const parent = this.parentOf(chunk);
    return this.parentOf(parent) === noChunk ? this.rootOf(chunk).key : this.key(parent);
  }

  /** What a record or a note says of the chunk, beside its payloads. Its tokens lie in place: not to be kept. */
  identityOf(chunk: ChunkId): Omit<ChunkRecord, "payloadBytes"> {
    const { space, key: root, owner } = this.rootOf(chunk);
    const [key, parent] = [this.key(chunk), this.parentKey(chunk)];
    const tenant = owner.name !== undefined && { tenant: owner.name };
    return { space, root, key, parent, firstToken: this.firstToken(chunk), tokens: this.tokens(chunk), ...tenant };
  }

  /** Asserts that a chunk is found by its key, where such questions come, exactly when its key is known. */
  checkKeys(trees: Iterable<RootIndex>): void {
    if (this.#keys === undefined) return;
    let known = 0;
    for (const { tree } of trees)
      for (const chunk of tree.nodes()) {
        if (!this.table.is(chunk, flag.keyKnown)) continue;
        known += 1;
        assert(this.withKey(this.key(chunk)) === chunk, "a chunk is not found by its key");
      }
    assert(this.#keys.size === known, "keys that are found and keys that are known differ");
  }

  traits(chunk: ChunkId): ChunkTraits {
    return { fingerprint: Number.parseInt(this.key(chunk).slice(0, 8), 16), firstToken: this.firstToken(chunk) };
  }

  #recordTierOf(chunk: ChunkId, what: Wanted): TierName | undefined {
    for (let tier = 0; tier < this.tiers.length; tier += 1) {
      const isThere = this.table.record(chunk, tier) !== undefined && (what === "rows" || !this.isLacking(chunk, tier));
      if (isThere) return this.tiers[tier]!.name; // one of them
    }
    return undefined;
  }

  #setSnapshots(chunk: ChunkId, bits: number, value: boolean): void {
    const known = this.table.get(chunk, field.snapshots);
    this.table.set(chunk, field.snapshots, value ? known | bits : known & ~bits);
  }

  #knownKey(chunk: ChunkId): ChunkKey | RootKey {
    if (this.parentOf(chunk) === noChunk) return this.rootOf(chunk).key;
    return Buffer.from(this.table.keyBytes(chunk)).toString("hex") as ChunkKey; // known: asked above
  }
}
