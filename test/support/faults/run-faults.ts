/**
 * Random faults under load, from a seed: two hosts answer while what they share is killed, cut off, filled up and damaged.
 *
 *     load     ═══════════════════════════════════════════►     every answer is compared
 *     faults      ▂▂▂   ▂    ▂▂▂▂▂     ▂▂  …                    one after the other, some while the last one's traces are fresh
 *     after                                        ▄▄▄▄▄▄▄▄     no lease, no memory, and the shared tier is used again
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Random } from "../../../src/bench/notes/random.ts";
import type { FaultHost } from "./host.ts";

/** What hosts share, and what can happen to it. */
export interface Lane extends AsyncDisposable {
  readonly name: string;
  /** As `/cache/stats` calls the tier. */
  readonly tier: string;
  readonly hosts: readonly FaultHost[];
  /** Each makes the fault, and resolves when it is over. */
  readonly faults: Readonly<Record<string, (random: Random) => Promise<void>>>;
}

export interface FaultReport {
  readonly lane: string;
  readonly faults: Readonly<Record<string, number>>;
  readonly requests: number;
  readonly answers: number;
  readonly hitTokens: number;
  readonly sharedTokens: number;
  readonly longestMs: number;
  readonly grownMiB: readonly number[];
  readonly leases: number;
  readonly backMs: number;
}

/** A request that takes longer is a failed one: the deadline that its guest gives is 2 s. */
const longestRequestMs = 15_000;
/** Texts that are asked for at a time; new ones come in, old ones leave. */
const windowTexts = 60;
const workersPerHost = 2;
/** Restored at the end, or nothing is right. */
const backWithinMs = 180_000;
/** What is stored on one host may take so long until others find it. */
const travelMs = 10_000;

/** @throws Error at the first wrong or failed answer, a lease that stays, or a tier that does not come back */
export async function runFaults(lane: Lane, { count, seed }: { count: number; seed: number }): Promise<FaultReport> {
  const random = new Random(seed);
  const load = new Load(lane);
  await load.warmUp();
  const staying = lane.hosts.filter(({ options }) => options.mayDie !== true);
  const before = staying.map((host) => host.anonymousBytes);
  const kinds = Object.keys(lane.faults);
  const done: Record<string, number> = {};
  load.start(new Random(seed + 1));
  try {
    for (let i = 0; i < count; i += 1) {
      if (i % kinds.length === 0) kinds.splice(0, kinds.length, ...random.some(kinds, kinds.length)); // each kind comes as often
      const kind = kinds[i % kinds.length]!;
      await load.unlessItFails(lane.faults[kind]!(random));
      done[kind] = (done[kind] ?? 0) + 1;
      await load.unlessItFails(sleep(random.percent(30) ? 6000 : random.below(1000)));
    }
    const began = performance.now();
    await load.unlessItFails(load.sharedAgain());
    const backMs = performance.now() - began;
    await load.stop();
    const leases = await noLeases(lane.hosts);
    const grown = staying.map((host, i) => Math.round((host.anonymousBytes - before[i]!) / 2 ** 20));
    return { lane: lane.name, faults: done, ...load.figures, grownMiB: grown, leases, backMs: Math.round(backMs) };
  } finally {
    await load.stop().catch(() => {}); // what failed is thrown already
  }
}

class Load {
  readonly #lane: Lane;
  readonly #workers: Promise<void>[] = [];
  readonly #over = new AbortController();
  readonly #prompts: { readonly prompt: string; readonly answer: string }[] = [];
  #failed: (error: unknown) => void = () => {};
  readonly #failure = new Promise<never>((_, reject) => (this.#failed = reject));
  #newest = windowTexts;
  #requests = 0;
  #answers = 0;
  #hitTokens = 0;
  #longestMs = 0;
  #sharedTokens = 0;

  constructor(lane: Lane) {
    this.#lane = lane;
    this.#failure.catch(() => {}); // whoever waits is told
  }

  get figures() {
    return {
      requests: this.#requests,
      answers: this.#answers,
      hitTokens: this.#hitTokens,
      sharedTokens: this.#sharedTokens,
      longestMs: Math.round(this.#longestMs),
    };
  }

  /** Pages are touched, code is compiled, and it is known what the model says without a cache. */
  async warmUp(): Promise<void> {
    const { hosts } = this.#lane;
    for (const host of hosts) await host.connect();
    for (let text = 0; text < windowTexts; text += 1) for (const host of hosts) await host.request(text);
    const model = hosts.find(({ options }) => options.url !== undefined);
    if (model === undefined) return;
    for (let i = 0; i < 6; i += 1) {
      const words = Array.from({ length: 120 }, (_, word) => `item ${(i + 1) * word * 7919} of list ${i}`);
      const prompt = `${words.join(", ")}. The list says`;
      this.#prompts.push({ prompt, answer: await model.ask(prompt, "no cache") });
    }
  }

  start(random: Random): void {
    for (const host of this.#lane.hosts) {
      for (let i = 0; i < workersPerHost; i += 1) this.#work(() => this.#request(host, random));
      if (host.options.url !== undefined) this.#work(() => this.#ask(host, random));
    }
  }

  /** Rejects as soon as a request has failed. */
  unlessItFails<T>(work: Promise<T>): Promise<T> {
    return Promise.race([work, this.#failure]);
  }

  /**
   * Text after text is stored on the first host and asked for on the second, until one comes through the shared tier. Each is asked for
   * when it has had time to get there: a bucket's chunks wait some seconds for those that follow them, under load.
   */
  async sharedAgain(): Promise<void> {
    const [one, other] = this.#lane.hosts;
    const { tier } = this.#lane;
    const stored: { readonly text: number; readonly at: number }[] = [];
    for (const began = performance.now(); performance.now() - began < backWithinMs;) {
      const text = (this.#newest += 1) + 1_000_000;
      await one!.request(text); // two hosts at least
      stored.push({ text, at: performance.now() });
      await sleep(500);
      if (performance.now() - stored[0]!.at < travelMs) continue;
      const before = (await other!.stats()).loadedTokens[tier] ?? 0;
      await other!.request(stored.shift()!.text);
      this.#sharedTokens = (await other!.stats()).loadedTokens[tier] ?? 0;
      if (this.#sharedTokens >= before + 40) return;
    }
    throw new Error(`${tier} is not used again after ${backWithinMs / 1000} s`);
  }

  async stop(): Promise<void> {
    this.#over.abort();
    await Promise.all(this.#workers);
  }

  #work(once: () => Promise<void>): void {
    const work = async () => {
      while (!this.#over.signal.aborted) await once();
    };
    this.#workers.push(work().catch((error: unknown) => this.#failed(error)));
  }

  async #request(host: FaultHost, random: Random): Promise<void> {
    if (random.percent(2)) this.#newest += 1;
    const text = this.#newest - random.below(windowTexts);
    const began = performance.now();
    if (random.percent(5)) await host.prefetch(text);
    this.#hitTokens += await host.request(text);
    this.#requests += 1;
    this.#took(host, performance.now() - began);
    await sleep(10); // the cores are others' too
  }

  async #ask(host: FaultHost, random: Random): Promise<void> {
    const { prompt, answer } = random.pick(this.#prompts);
    const began = performance.now();
    const said = await host.ask(prompt, "cache");
    if (said !== answer)
      throw new Error(`${host.options.name} says ${JSON.stringify(said)}, not ${JSON.stringify(answer)}`);
    this.#answers += 1;
    this.#took(host, performance.now() - began);
    await sleep(100);
  }

  #took(host: FaultHost, ms: number): void {
    this.#longestMs = Math.max(this.#longestMs, ms);
    if (ms > longestRequestMs) throw new Error(`a request on ${host.options.name} took ${Math.round(ms)} ms`);
  }
}

/** Of hosts where nobody asks any more. A read that hangs is given up after half a minute. */
async function noLeases(hosts: readonly FaultHost[]): Promise<number> {
  let leases = 0;
  for (const began = performance.now(); performance.now() - began < 40_000; await sleep(100)) {
    leases = 0;
    for (const host of hosts) leases += (await host.stats()).leases;
    if (leases === 0) return 0;
  }
  throw new Error(`${leases} leases are left`);
}
