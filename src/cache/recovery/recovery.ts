/**
 * Recovery: what lies in tiers and is not in the index. What logs kept from before comes back while guests are served
 * (from-tiers.ts); until it has, and of tiers that list nothing, a text comes when it is asked for (asked-tiers.ts).
 */
import type { RootKey } from "../../identity/keys.ts";
import type { Tokens } from "../../identity/tokens.ts";
import { ownedLog, type LogTier, type Tier, type TierOwner } from "../../tier.ts";
import type { Counters } from "../counters.ts";
import type { Space, Spaces } from "../index/spaces.ts";
import type { ChunkStore } from "../pool/chunk-store.ts";
import type { LoadOrCompute } from "../tiering/load-or-compute.ts";
import type { TierCounts } from "../tiering/tier-counters.ts";
import type { TierStates } from "../tiering/tier-states.ts";
import { AskedTiers, type Asker, type Bring } from "./asked-tiers.ts";
import { ReturningRecords } from "./from-tiers.ts";

export interface RecoveryParts {
  /** From fast to slow. */
  readonly tiers: readonly Tier[];
  readonly spaces: Spaces;
  readonly store: ChunkStore;
  readonly counters: Counters;
  readonly tierCounts: TierCounts;
  readonly tierStates: TierStates;
  readonly loadOrCompute: LoadOrCompute;
  readonly now: () => number;
}

export class Recovery {
  readonly #tiers: readonly Tier[];
  readonly #store: ChunkStore;
  readonly #returning: ReturningRecords;
  readonly #asked: AskedTiers;
  #work: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(parts: RecoveryParts) {
    const { tiers, spaces, store, counters } = parts;
    this.#tiers = tiers;
    this.#store = store;
    const returning = new ReturningRecords({ store, counters, makeRoot: (space, key) => spaces.makeRoot(space, key) });
    this.#returning = returning;
    this.#asked = new AskedTiers({
      ...parts,
      isReturning: (space) => returning.isReturning(space),
      onPlaced: (space, key, chunk) => returning.placedAhead(space, key, chunk),
    });
  }

  /** A guest described the space: what the tiers kept of it can be read from now on. */
  open(space: Space): void {
    this.#returning.open(space);
  }

  /** Takes over what the logs kept, in the background, and answers their questions from then on. */
  start(onFailure: (tier: Tier, error: unknown) => void): void {
    const logs = this.#tiers.flatMap((tier) => ownedLog(tier) ?? []);
    const work = logs.map((tier) => this.#recover(tier).catch((error: unknown) => onFailure(tier, error)));
    this.#work = Promise.all(work).then(() => this.#returning.end());
  }

  /** Tiers may have more of the space's texts than the index says. */
  mayHaveMore(space: Space): boolean {
    return this.#asked.mayHaveMore(space);
  }

  /** How tiers are asked for a text, which is kept, whose memory must stay; undefined when none is worth being waited for. */
  mayBring(space: Space, root: RootKey, text: Tokens, asker: Asker): Bring | undefined {
    return this.#asked.mayBring(space, root, text, asker);
  }

  /** Resolves when what the logs kept is known, and that of open spaces can be found. */
  settled(): Promise<void> {
    return this.#returning.settled();
  }

  /** Ends the recovery where it is. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#returning.stop();
    this.#asked.stop();
    await this.#work;
  }

  #ownerOf(tier: LogTier): TierOwner {
    return {
      isWanted: (id) => {
        const chunk = this.#store.records.ownerOf(tier, id);
        return chunk !== undefined && this.#store.records.isWanted(chunk);
      },
      onEvicted: (ids) => {
        for (const id of ids) {
          const chunk = this.#store.records.forget(tier, id);
          if (chunk !== undefined) this.#store.removeIfEmpty(chunk);
        }
      },
      onMoved: (from, to) => {
        const chunk = this.#store.records.ownerOf(tier, from);
        if (chunk === undefined) return;
        this.#store.records.move(chunk, tier, to);
      },
    };
  }

  async #recover(tier: LogTier): Promise<void> {
    for await (const batch of tier.recover(this.#ownerOf(tier))) {
      if (this.#stopped) return;
      this.#returning.add(tier, batch);
    }
  }
}
