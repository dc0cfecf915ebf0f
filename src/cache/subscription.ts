/**
 * What a subscriber sees of the cache (events.ts tells it). Its events are kept until it takes them, up to a limit.
 *
 *     tell ──► kept ──► next batch        full ──► counted as missed, told with the batch, until there is room again
 *
 * Whoever tells never waits and never calls the subscriber's code, so one that is slow, or that throws, harms itself alone.
 */
import { assert, RepriseError } from "../errors.ts";
import type { ChunkKey, RootKey } from "../identity/keys.ts";
import type { SpaceId } from "../identity/space.ts";
import type { Tokens } from "../identity/tokens.ts";
import type { TierName } from "../tier.ts";

/** A chunk came into a tier or left it. */
export interface ChunkEvent {
  /** `stored`, `evicted`: all ranks' payloads are in memory, or no longer are. `recorded`, `removed`: the same of a tier below. */
  readonly kind: "stored" | "evicted" | "recorded" | "removed";
  readonly tier: TierName;
  readonly space: SpaceId;
  readonly root: RootKey;
  readonly key: ChunkKey;
  /** The chunk before it, or the root. */
  readonly parent: ChunkKey | RootKey;
  /** Position of the first token in the text. */
  readonly firstToken: number;
  readonly tokenCount: number;
  /** Tokens of a whole chunk of this space: one with fewer ends its text. */
  readonly chunkTokens: number;
  /** Of `stored` and `recorded`, where the subscriber asked for them. */
  readonly tokens?: Tokens;
}

/** The cache was cleared: what it held before has been told as evicted and removed, but for what somebody is using. */
export interface ClearedEvent {
  readonly kind: "cleared";
}

export type CacheEvent = ChunkEvent | ClearedEvent;

export interface SubscribeOptions {
  /** Events carry the token ids of what is stored and recorded. */
  readonly tokens?: boolean;
  /** Events that are kept for a subscriber that is behind: 1 to 1,048,576; 16,384 unless given. */
  readonly keepEvents?: number;
}

/** Events in the order in which they happened. */
export interface EventBatch {
  readonly events: readonly CacheEvent[];
  /** Events after these that were not kept. Above 0, only {@link Subscription.held} says what is there. */
  readonly missed: number;
}

const usuallyKept = 16_384;
const mostKept = 2 ** 20;

interface Source {
  readonly held: (withTokens: boolean) => Iterable<ChunkEvent>;
  readonly onClose: () => void;
}

export class Subscription implements AsyncIterable<EventBatch>, Disposable {
  readonly #source: Source;
  readonly #withTokens: boolean;
  readonly #keepEvents: number;
  #events: CacheEvent[] = [];
  #missed = 0;
  #closed = false;
  #wake: (() => void) | undefined;

  /** Made by `subscribe`. @throws RepriseError BAD_REQUEST (with the field) */
  constructor({ tokens = false, keepEvents = usuallyKept }: SubscribeOptions, source: Source) {
    if (!Number.isSafeInteger(keepEvents) || keepEvents < 1 || keepEvents > mostKept)
      throw new RepriseError("BAD_REQUEST", `keepEvents must be a whole number from 1 to ${mostKept}`, {
        field: "keepEvents",
      });
    this.#withTokens = tokens;
    this.#keepEvents = keepEvents;
    this.#source = source;
  }

  /**
   * What can be found now, told as `stored` and `recorded`, parents before their children; events kept until now are dropped,
   * since this has them. For the beginning, and after events were missed. To be read to its end without waiting in between.
   */
  held(): Iterable<ChunkEvent> {
    this.#events = [];
    this.#missed = 0;
    return this.#closed ? [] : this.#source.held(this.#withTokens);
  }

  /** What there is to tell now, for who does not wait; it is not told again. */
  take(): EventBatch {
    const batch = { events: this.#events, missed: this.#missed };
    this.#events = [];
    this.#missed = 0;
    return batch;
  }

  /** The batches, each as soon as there is something to tell, until the cache or the subscription is closed. For one reader. */
  async *[Symbol.asyncIterator](): AsyncGenerator<EventBatch, void, void> {
    try {
      for (;;) {
        if (this.#events.length > 0 || this.#missed > 0) yield this.take();
        else if (this.#closed) return;
        else await this.#more();
      }
    } finally {
      this.close();
    }
  }

  /** Nothing more is kept. What was, the reader still gets. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#source.onClose();
    this.#wake?.();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Keeps an event, made only if there is room for it. For the cache. */
  push(event: CacheEvent | ((withTokens: boolean) => ChunkEvent)): void {
    if (this.#events.length >= this.#keepEvents || this.#missed > 0) this.#missed += 1;
    else this.#events.push(typeof event === "function" ? event(this.#withTokens) : event);
    this.#wake?.();
  }

  #more(): Promise<void> {
    assert(this.#wake === undefined, "a subscription has one reader");
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }
}
