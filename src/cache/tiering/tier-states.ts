/**
 * How each tier is, so that the cache goes on without those that fail, and people see which and why.
 *
 *     unknown                                              a shared one that has not answered yet; used as if it were up
 *     │  └── a probe at the start failed, or a lookup, read or write ──► away
 *     ▼ a probe is answered
 *     up ◄──── a long text would pay again ──── slow        up, but computing is faster than loading, whatever the text
 *     │  ────── none has paid for a while ────►  │
 *     │                                          │
 *     └──────► a lookup, read or write failed ◄──┘
 *     ▲                      │
 *     │                    away ◄──┐                        left alone: no request waits for it
 *     │                      │     │ it is not
 *     └─── a probe is answered, every retryMs               a lookup of what nobody has
 *
 * A load that was late makes the cache ask at once whether the tier is there: a read may take longer than guests wait.
 *
 * A log is not probed: it is used again after `retryMs`, by writes that nobody waits for. One log line at each change.
 */
import { randomBytes } from "node:crypto";
import { describe } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { Log } from "../../log.ts";
import { ownedLog, type Tier, type TierName } from "../../tier.ts";
import { answerOf, LateAnswer } from "./patience.ts";
import type { TierCounts } from "./tier-counters.ts";

export const stateNames = ["unknown", "up", "slow", "away"] as const;
export type TierStateName = (typeof stateNames)[number];

/** Shown as it is. */
export interface TierState {
  readonly is: TierStateName;
  readonly forSeconds: number;
  /** Since the cache's start; it may be over. */
  readonly lastError?: { readonly message: string; readonly agoSeconds: number };
}

export interface TierStatesOptions {
  readonly tiers: readonly Tier[];
  readonly tierCounts: TierCounts;
  readonly log: Log;
  /** How long a tier that failed is left alone, and how often it is probed then. */
  readonly retryMs: number;
  readonly now: () => number;
}

/** A tier is slow when no text would have paid for so long. */
const slowMs = 30_000;
/** A tier that has just been opened may be connecting: it is probed so often, until `retryMs` are over. */
const connectingMs = 250;
const longestMessage = 300;

/** Of probes: no text has it. */
export const probeSpace = "0".repeat(64) as SpaceId;
const probeRoot = "0".repeat(64) as RootKey;

interface Health {
  is: TierStateName;
  since: number;
  /** When a text last would have paid; at first, and after each outage, it is taken for granted. */
  paid: number;
  error: { readonly message: string; readonly at: number } | undefined;
  timer: NodeJS.Timeout | undefined;
  /** It is being asked whether it is there. */
  isSuspected: boolean;
}

export class TierStates {
  readonly #options: TierStatesOptions;
  readonly #healths = new Map<Tier, Health>();
  readonly #whenBack = new Map<Tier, () => void>();
  #whenSilent: (tier: Tier) => void = () => {};
  readonly #stop = new AbortController();

  constructor(options: TierStatesOptions) {
    this.#options = options;
    const now = options.now();
    for (const tier of options.tiers)
      this.#healths.set(tier, {
        is: ownedLog(tier) === undefined ? "unknown" : "up",
        since: now,
        paid: now,
        error: undefined,
        timer: undefined,
        isSuspected: false,
      });
  }

  /** Finds out in the background which shared tiers are there, so that no request has to. */
  start(): void {
    const tries = Math.ceil(this.#options.retryMs / connectingMs);
    for (const tier of this.#options.tiers)
      if (ownedLog(tier) === undefined) void this.#findOut(tier, { triesLeft: tries - 1 });
  }

  isAway(tier: Tier): boolean {
    return this.#healths.get(tier)?.is === "away";
  }

  /** Called each time the tier may be tried again. One listener a tier. */
  onBack(tier: Tier, listener: () => void): void {
    this.#whenBack.set(tier, listener);
  }

  /** Called when a tier is away because it does not answer: what it is still asked for will not come. One listener. */
  onSilent(listener: (tier: Tier) => void): void {
    this.#whenSilent = listener;
  }

  /** A lookup, read or write of the tier has failed. */
  failed(tier: Tier, error: unknown): void {
    this.#options.tierCounts.of(tier).failures += 1;
    this.#goAway(tier, error);
  }

  /** A guest has waited in vain for a chunk from there. */
  suspect(name: TierName): void {
    const tier = this.#named(name);
    const health = tier && this.#healths.get(tier);
    if (tier === undefined || health === undefined || ownedLog(tier) !== undefined) return;
    if (health.is === "away" || health.isSuspected) return;
    health.isSuspected = true;
    void this.#probe(tier).then((error) => {
      health.isSuspected = false;
      if (error !== undefined) this.#goAway(tier, error);
    });
  }

  /** By what is measured, a long text would be loaded from there faster than computed, or not. */
  judged(name: TierName, pays: boolean): void {
    const tier = this.#named(name);
    const health = tier && this.#healths.get(tier);
    if (health === undefined || health.is === "away") return;
    const now = this.#options.now();
    const { log } = this.#options;
    if (pays) {
      health.paid = now;
      if (health.is === "slow") this.#change(health, "up", () => log.info(`${name} tier: fast enough again`));
    } else if (health.is === "up" && now - health.paid >= slowMs)
      this.#change(health, "slow", () =>
        log.info(`${name} tier: slow: computing a text is faster than loading it from there`),
      );
  }

  stateOf(tier: Tier): TierState {
    const health = this.#healths.get(tier);
    const { now } = this.#options;
    const { is, since, error } = health ?? { is: "up", since: now() };
    const lastError = error && { message: error.message, agoSeconds: secondsFrom(error.at, now()) };
    return { is, forSeconds: secondsFrom(since, now()), ...(lastError && { lastError }) };
  }

  /** Nobody is told any more. */
  close(): void {
    this.#stop.abort();
    for (const { timer } of this.#healths.values()) clearTimeout(timer);
    this.#whenBack.clear();
  }

  #named(name: TierName): Tier | undefined {
    return this.#options.tiers.find((each) => each.name === name);
  }

  #goAway(tier: Tier, error: unknown): void {
    const health = this.#healths.get(tier);
    if (health === undefined || this.#stop.signal.aborted) return;
    this.#noteError(health, error);
    if (health.is === "away") return;
    const { log, retryMs } = this.#options;
    this.#change(health, "away", () => log.warn(`${tier.name} tier: ${health.error?.message}; going on without it`));
    this.#later(health, retryMs, () => void this.#tryAgain(tier, health));
    if (error instanceof LateAnswer) this.#whenSilent(tier);
  }

  async #tryAgain(tier: Tier, health: Health): Promise<void> {
    const { retryMs, log, now } = this.#options;
    const error = ownedLog(tier) === undefined ? await this.#probe(tier) : undefined;
    if (this.#stop.signal.aborted) return;
    if (error !== undefined) {
      this.#noteError(health, error);
      this.#later(health, retryMs, () => void this.#tryAgain(tier, health));
      return;
    }
    const seconds = Math.round(secondsFrom(health.since, now()));
    this.#change(health, "up", () => log.info(`${tier.name} tier: used again after ${seconds} s`));
    health.paid = now();
    this.#whenBack.get(tier)?.();
  }

  async #findOut(tier: Tier, { triesLeft }: { triesLeft: number }): Promise<void> {
    const error = await this.#probe(tier);
    const health = this.#healths.get(tier);
    if (health === undefined || health.is === "away" || this.#stop.signal.aborted) return;
    if (error === undefined) {
      health.paid = this.#options.now();
      if (health.is === "unknown")
        this.#change(health, "up", () => this.#options.log.debug(`${tier.name} tier: it is there`));
      return;
    }
    if (triesLeft <= 0 || error instanceof LateAnswer) this.#goAway(tier, error);
    else this.#later(health, connectingMs, () => void this.#findOut(tier, { triesLeft: triesLeft - 1 }));
  }

  /** @returns why it does not answer; undefined when it does */
  async #probe(tier: Tier): Promise<unknown> {
    // One key: a store needs one round trip for it, whatever it needs for a text. Another each time: a cluster's nodes take turns.
    const key = randomBytes(32).toString("hex") as ChunkKey;
    try {
      const find = (signal: AbortSignal) => tier.find(probeSpace, probeRoot, [key], signal);
      await answerOf(find, this.#stop.signal);
      return undefined;
    } catch (error) {
      return error ?? "it does not answer";
    }
  }

  #later(health: Health, milliseconds: number, work: () => void): void {
    clearTimeout(health.timer);
    health.timer = setTimeout(work, milliseconds).unref();
  }

  #noteError(health: Health, error: unknown): void {
    health.error = { message: describe(error).slice(0, longestMessage), at: this.#options.now() };
  }

  #change(health: Health, is: TierStateName, tell: () => void): void {
    health.is = is;
    health.since = this.#options.now();
    tell();
  }
}

function secondsFrom(since: number, now: number): number {
  return Math.round(now - since) / 1000;
}
