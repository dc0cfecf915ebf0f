/** Who waits for what from the engine process: requests, by the id under which they are sent. */
import type { GenerateEvent } from "../../../engine.ts";
import { EventQueue } from "./event-queue.ts";

/** What one request waits for. */
export interface Exchange {
  readonly id: number;
  readonly tenant: string;
  readonly answers: EventQueue<GenerateEvent>;
  /** How far it is: without a sequence, its prompt being read, or its answer being written. */
  phase: "waiting" | "prefill" | "decoding";
}

export class Exchanges {
  readonly #open = new Map<number, Exchange>();
  #lastId = 0;

  /** Requests that were not closed yet: those that count for the queue. */
  get count(): number {
    return this.#open.size;
  }

  open(tenant: string): Exchange {
    this.#lastId += 1;
    const exchange: Exchange = { id: this.#lastId, tenant, answers: new EventQueue(), phase: "waiting" };
    this.#open.set(exchange.id, exchange);
    return exchange;
  }

  /** Undefined for those that have been closed: their client has left. */
  get(id: number): Exchange | undefined {
    return this.#open.get(id);
  }

  close({ id }: Exchange): void {
    this.#open.delete(id);
  }

  /** Those without a sequence, oldest first. */
  get waiting(): Exchange[] {
    return [...this.#open.values()].filter(({ phase }) => phase === "waiting");
  }

  /** The process is gone: everybody hears of it. */
  failAll(error: unknown): void {
    for (const { answers } of this.#open.values()) answers.fail(error);
  }
}
