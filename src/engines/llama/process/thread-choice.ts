/**
 * How many threads a step runs on.
 *
 * ggml's threads wait for each other by spinning, after every operation. With a core for each that is the fastest way;
 * with fewer free cores than threads, every wait costs a time slice: a token that takes 15 ms on one thread took 170 ms on
 * two while another program used a core. So the counts are tried, and the one that is fastest now is used. Now and then a
 * step meets another program on any machine; that alone changes nothing, or answers would be slow for a thousand tokens after it. There is one
 * choice for steps of a few tokens, whose operations are short, and one for prompt slices: these never try a single
 * thread of many, since one slice may then take a minute.
 *
 * Deterministic mode keeps one count: how attention is split over threads shows in the last bits.
 */
import type { Log } from "../../../log.ts";
import { physicalCores, usableProcessors } from "../model/machine.ts";

interface Candidate {
  readonly threads: number;
  stepMs: number | undefined;
  stepsSince: number;
  steps: number;
}

export class ThreadChoice {
  readonly most: number;
  readonly #candidates: Candidate[];
  /** Steps. */
  #sinceRest = Infinity;

  constructor(most: number, steps: "small" | "large" | "deterministic") {
    this.most = most;
    const half = Math.ceil(most / 2);
    const counts = { small: [most, half, 1], large: [most, half], deterministic: [most] }[steps];
    this.#candidates = [...new Set(counts)].map((threads) => ({ threads, stepMs: undefined, stepsSince: 0, steps: 0 }));
  }

  /** Nothing was computed for a moment: what took the threads away before that may be over, and something else may be ending. */
  rested(): void {
    this.#sinceRest = 0;
    for (const candidate of this.#candidates) candidate.steps = 0;
  }

  /** Threads for the next step. */
  next(): number {
    if (triesAfterRest.includes(this.#sinceRest)) return this.#candidates[0]!.threads; // there is one
    const best = this.#best;
    // A slower count is tried again the more rarely, the slower it was: trying costs four percent at most, and of fewer threads, half
    // of one: when somebody else takes theirs, the steps on more threads tell. One that is not known yet waits for its turn, too: on a
    // machine that is free it would only make somebody's first prompt slow.
    const due = this.#candidates.find(({ threads, stepMs, stepsSince }) => {
      const slowness = stepMs === undefined || best.stepMs === undefined ? 1 : stepMs / best.stepMs;
      const often = stepMs === undefined || threads > best.threads ? 1 : rarely;
      return stepsSince > Math.min(longestRetrySteps, often * retrySteps * slowness);
    });
    return (due ?? best).threads;
  }

  /** Threads for a step whose time tells nothing: those that were the fastest. */
  get best(): number {
    return this.#best.threads;
  }

  /** Steps differ for other reasons as well: fewer threads must be clearly faster. The first candidate has the most. */
  get #best(): Candidate {
    return this.#candidates.reduce((a, b) => ((b.stepMs ?? Infinity) * clearly < (a.stepMs ?? 0) ? b : a));
  }

  /** Tells what a step took: a small one in all, a large one for each unit of what it costs. */
  measured(threads: number, elapsedMs: number): void {
    this.#sinceRest += 1;
    for (const candidate of this.#candidates) {
      candidate.stepsSince += 1;
      if (candidate.threads !== threads) continue;
      candidate.stepMs = this.#learned(candidate, elapsedMs);
      candidate.steps += 1;
      candidate.stepsSince = 0;
    }
  }

  /** What is known of a count after one more step. */
  #learned({ stepMs, stepsSince, steps }: Candidate, elapsedMs: number): number {
    if (stepMs === undefined) return elapsedMs;
    if (steps < firstSteps) return Math.min(stepMs, elapsedMs);
    // A single step that met another program says little, however long it took; several in a row outweigh what was known.
    const fastestMs = Math.min(...this.#candidates.map((candidate) => candidate.stepMs ?? Infinity));
    const counted = Math.min(elapsedMs, fastestMs * mostSlowness);
    const wasTriedAgain = stepsSince > retrySteps;
    if (!wasTriedAgain) return stepMs + (counted - stepMs) * weight;
    // Good news is believed at once: should it be wrong, the next steps say so.
    return elapsedMs < stepMs ? elapsedMs : Math.max(stepMs, (stepMs + counted) / 2);
  }
}

/**
 * Threads of an engine at most: what was asked for, as far as there are processors for them: with 64 threads on two processors the
 * model that ships was not ready after ten minutes, and with two after two seconds. Where answers must be the same bit for bit the number stays, since it shows in them.
 */
export function mostThreads(
  asked: number | undefined,
  options: { readonly deterministic: boolean; readonly log: Pick<Log, "warn"> },
  processors = usableProcessors(),
): number {
  if (asked === undefined) return physicalCores();
  if (asked <= processors) return asked;
  const most = options.deterministic ? asked : processors;
  const there = `this process may use ${processors} ${processors === 1 ? "processor" : "processors"}`;
  const therefore = options.deterministic
    ? `more threads than that make every step much slower; use --threads ${processors} or less`
    : `no more threads than that compute`;
  options.log.warn(`--threads ${asked}: ${there}, and ${therefore}`);
  return most;
}

/** The counts of one engine: its contexts share what is learned. */
export class StepThreads {
  readonly most: number;
  readonly small: ThreadChoice;
  readonly large: ThreadChoice;
  /** When the last step did, in ms. */
  #ended = -Infinity;

  constructor(most: number, options: { readonly deterministic: boolean }) {
    this.most = most;
    this.small = new ThreadChoice(most, options.deterministic ? "deterministic" : "small");
    this.large = new ThreadChoice(most, options.deterministic ? "deterministic" : "large");
  }

  /** A step begins, at this time in ms. */
  begin(now: number): void {
    if (now - this.#ended > restMs) for (const choice of [this.small, this.large]) choice.rested();
  }

  end(now: number): void {
    this.#ended = now;
  }
}

/** Without a step for so long the engine has rested. */
const restMs = 100;
/**
 * Steps after a rest that run on all threads, whatever is known. Another server's threads that wait for work by spinning do so for some
 * tens of milliseconds after its answer.
 */
const triesAfterRest = [0, 8];
const clearly = 1.3;
const retrySteps = 25;
const rarely = 8;
/** The first steps meet cold memory: the fastest of them counts. */
const firstSteps = 8;
const longestRetrySteps = 1000;
/** So many times the fastest count's step, at most, is what a step counts as. One bad step in ten changes nothing then. */
const mostSlowness = 3;
/** Of one step in what is known of its count: some twenty steps together outweigh the rest, so that a burst of other work does not. */
const weight = 0.05;
