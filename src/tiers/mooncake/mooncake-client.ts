/**
 * Mooncake's client as one thing that is there or not: its process, started again whenever it ends, and the memory that we share.
 *
 *     ask ──► a slot ──► what is to be written goes in ──► request ──► answer ──► what was read comes out ──► the slot is free
 *
 * Whoever asks waits no longer than its signal; the slot waits until the process has answered. When half of the slots wait like that
 * the process hangs, and is ended.
 */
import { setMaxListeners } from "node:events";
import { describe, RepriseError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { MooncakeAddress } from "./address.ts";
import { ClientProcess } from "./client-process.ts";
import type { Request } from "./messages.ts";
import { slotCount, Slots, type Purpose, type Slot } from "./slots.ts";

/** Mooncake gives a transfer up after a minute without ending it; one that fails sooner has ended. */
const givenUpMs = 30_000;
/** Between two starts: doubled from the first to the last. */
const firstPauseMs = 250;
const lastPauseMs = 5000;
/** Where there is no Mooncake: nobody installs it so soon. */
const absentPauseMs = 60_000;
/** What the process takes at most to find out that the master says nothing. */
const connectingMs = 60_000;

const absentAdvice =
  "pip install mooncake-transfer-engine-non-cuda==0.3.13.post1 there (and Debian's libibverbs1), or name another one with --mooncake-python";

export class MooncakeClient implements AsyncDisposable {
  readonly #address: MooncakeAddress;
  readonly #log: Log;
  readonly #slots: Slots;
  #process: ClientProcess | undefined;
  /** Why it cannot be asked; undefined while it can. */
  #fault: string | undefined = "it is not connected yet";
  #late = 0;
  #pauseMs = firstPauseMs;
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** Starts the process, which connects when the master is there. @throws RepriseError BAD_CONFIG where no memory can be shared */
  constructor(address: MooncakeAddress, log: Log) {
    this.#address = address;
    this.#log = log;
    try {
      this.#slots = new Slots();
    } catch (error) {
      const message = `--tier mooncake://…: there is no memory to share with its client (${describe(error)})`;
      throw new RepriseError("BAD_CONFIG", message, { cause: error });
    }
    this.#start();
  }

  /** Of the process, for tests that end it. */
  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /**
   * @param fill makes the request, and puts into the slot what it needs there
   * @param take reads the answer out of the slot; not called when the signal came first
   * @throws RepriseError TIER_UNAVAILABLE
   */
  async ask<T>(
    purpose: Purpose,
    signal: AbortSignal,
    fill: (slot: Slot) => Request,
    take: (results: readonly number[], slot: Slot) => T,
  ): Promise<T> {
    setMaxListeners(0, signal); // one for each value of a record
    try {
      this.#mustBeThere();
      const slot = await this.#slots.take(purpose, signal);
      let isLate = false;
      const answered = this.#answer(slot, fill, (results) => (isLate ? undefined : { taken: take(results, slot) }));
      const outcome = await this.#inTime(answered, signal, () => (isLate = true));
      if (outcome === undefined) throw new Error("it did not answer in time");
      return outcome.taken;
    } catch (error) {
      throw this.unavailable(error);
    }
  }

  unavailable(error: unknown): RepriseError {
    if (error instanceof RepriseError) return error;
    const message = `Mooncake at ${this.#address.master}: ${describe(error)}`;
    return new RepriseError("TIER_UNAVAILABLE", message, { cause: error });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isClosed = true;
    this.#fault = "it was closed";
    clearTimeout(this.#timer);
    await this.#process?.end();
    await new Promise(setImmediate); // whoever asked has been told, and lets go of its slot
    this.#slots.close();
  }

  /** The slot is free when this ends, whoever still waits for it. */
  async #answer<T>(slot: Slot, fill: (slot: Slot) => Request, take: (results: readonly number[]) => T): Promise<T> {
    let began = performance.now();
    try {
      const process = this.#mustBeThere(); // what was so before the slot came may have changed
      began = performance.now();
      return take(await process.ask(fill(slot)));
    } finally {
      if (performance.now() - began > givenUpMs) this.#slots.rest(slot);
      else this.#slots.give(slot);
    }
  }

  /** Undefined: the signal came first. */
  async #inTime<T>(work: Promise<T>, signal: AbortSignal, onLate: () => void): Promise<T | undefined> {
    let late = () => {};
    const aborted = new Promise<undefined>((resolve) => {
      late = () => {
        onLate();
        this.#waitsLate(work);
        resolve(undefined);
      };
      if (signal.aborted) late();
      else signal.addEventListener("abort", late);
    });
    try {
      return await Promise.race([work, aborted]);
    } finally {
      signal.removeEventListener("abort", late);
    }
  }

  #waitsLate(work: Promise<unknown>): void {
    this.#late += 1;
    const ended = () => (this.#late -= 1);
    work.then(ended, ended); // of nobody's interest but for its slot
    if (this.#late * 2 >= slotCount) this.#process?.kill();
  }

  #mustBeThere(): ClientProcess {
    if (this.#fault !== undefined || this.#process === undefined) throw new Error(this.#fault);
    return this.#process;
  }

  #start(): void {
    let hasSpoken = false;
    this.#process = new ClientProcess({
      address: this.#address,
      memoryFile: this.#slots.file,
      onState: ({ state, why }) => {
        if (this.#isClosed) return;
        hasSpoken = true;
        clearTimeout(this.#timer);
        if (state === "connecting") this.#timer = setTimeout(() => this.#process?.kill(), connectingMs);
        if (state === "ready") {
          this.#fault = undefined;
          this.#pauseMs = firstPauseMs;
          return;
        }
        if (state !== "absent") {
          this.#fault = state === "away" ? why : "its master does not answer";
          return;
        }
        this.#pauseMs = absentPauseMs;
        const advice = `${this.#address.python} has no Mooncake (${why}): ${absentAdvice}`;
        if (this.#fault === advice) return; // once
        this.#fault = advice;
        this.#log.warn(`the tier in Mooncake is away: ${advice}`);
      },
      onExit: (how) => {
        if (this.#isClosed) return;
        clearTimeout(this.#timer);
        if (this.#fault === undefined) {
          this.#fault = `its client's process ended: ${how}`;
          this.#log.warn(`Mooncake's client is started again: ${how}`);
        } else if (!hasSpoken) this.#fault = how; // else it has said itself what is wrong
        this.#timer = setTimeout(() => this.#start(), this.#pauseMs);
        this.#pauseMs = Math.min(lastPauseMs, this.#pauseMs * 2);
      },
    });
  }
}
