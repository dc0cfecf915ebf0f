/**
 * Is a process alive? Two signs count: any message from it, and processor time that it used.
 *
 *     heard of, or working ──still for silentMs──► silent ──still for hungMs──► hung
 *           ▲                                        │
 *           └──────────────── a sign ────────────────┘
 *
 * The process answers a ping between two steps. A step, a long text or a load lets no message through but uses the
 * processor, so a process is still only when it does neither: it is stopped, or waits for something that never comes. One
 * that works and says nothing for `busyMs` is taken for hung as well.
 *
 * Time is counted in ticks of the server's own clock: after a suspended machine wakes up one tick has passed, not a night.
 */
import { readFileSync } from "node:fs";

/** Of the clock that Linux shows to programs, whatever its own is. */
const msPerTick = 10;

export interface WatchLimits {
  /** Still for this long: it cannot be counted on. */
  readonly silentMs: number;
  /** Still for this long: it will not come back. */
  readonly hungMs: number;
  /** Without a word for this long, at work or not. */
  readonly busyMs: number;
  /** How often it is looked at. */
  readonly tickMs: number;
}

export interface WatchdogOptions {
  readonly limits: WatchLimits;
  readonly pid: number | undefined;
  /** Asks for a sign; not again before one has come. */
  readonly ping: () => void;
  /** Called once, with what was seen. */
  readonly onHung: (how: string) => void;
}

export class Watchdog {
  readonly #options: WatchdogOptions;
  readonly #timer: NodeJS.Timeout;
  #isAsked = false;
  #unheardMs = 0;
  #stillMs = 0;
  #cpu = 0;

  constructor(options: WatchdogOptions) {
    this.#options = options;
    this.#timer = setInterval(() => this.#look(), options.limits.tickMs);
    this.#timer.unref();
  }

  /** It has been still for too long to be counted on. */
  get isSilent(): boolean {
    return this.#stillMs >= this.#options.limits.silentMs;
  }

  /** A message came from it. */
  heard(): void {
    this.#isAsked = false;
    this.#unheardMs = 0;
    this.#stillMs = 0;
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  #look(): void {
    const { limits, pid, ping, onHung } = this.#options;
    const cpu = processorMs(pid);
    // Where the system does not say, only words count.
    const worked = cpu === undefined || cpu !== this.#cpu;
    this.#cpu = cpu ?? 0;
    this.#unheardMs += limits.tickMs;
    this.#stillMs = worked ? 0 : this.#stillMs + limits.tickMs;
    if (this.#stillMs >= limits.hungMs || this.#unheardMs >= limits.busyMs) {
      this.stop();
      const isStill = this.#stillMs >= limits.hungMs;
      onHung(
        `${isStill ? "it did nothing" : "it said nothing"} for ${Math.round((isStill ? limits.hungMs : limits.busyMs) / 1000)} s`,
      );
      return;
    }
    if (!this.#isAsked) ping();
    this.#isAsked = true;
  }
}

/** Milliseconds of processor time that a process used, in steps of ten; undefined where the system does not tell. */
export function processorMs(pid: number | undefined): number | undefined {
  if (pid === undefined || process.platform !== "linux") return undefined;
  try {
    // "pid (name) state …": the name may hold anything; user and system time are the 12th and 13th after it.
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return msPerTick * (Number(fields[11]) + Number(fields[12]));
  } catch {
    return undefined; // gone, which is told otherwise; or no descriptor is free for it
  }
}
