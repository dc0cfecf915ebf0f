/** Who waits for what from the engine process: generations and questions, by the id under which they were sent. */
import type { GenerateEvent } from "../../engine.ts";
import { EventQueue } from "./event-queue.ts";

/** What one request or question waits for. */
export interface Exchange {
  readonly id: number;
  /** Generations are answered by events, questions by what they asked for. */
  readonly answers: EventQueue<GenerateEvent | Uint32Array | string>;
  /** How far the engine process is with a generation. */
  phase: "waiting" | "reading" | "decoding";
}

export class Exchanges {
  readonly #open = new Map<number, Exchange>();
  readonly #generations = new Set<number>();
  #lastId = 0;

  /** Generations that were not closed yet: those that count for the queue. */
  get generations(): number {
    return this.#generations.size;
  }

  open(kind: "generation" | "question"): Exchange {
    this.#lastId += 1;
    const exchange: Exchange = { id: this.#lastId, answers: new EventQueue(), phase: "waiting" };
    this.#open.set(exchange.id, exchange);
    if (kind === "generation") this.#generations.add(exchange.id);
    return exchange;
  }

  /** Undefined for those that have been closed: their client has left. */
  get(id: number): Exchange | undefined {
    return this.#open.get(id);
  }

  close({ id }: Exchange): void {
    this.#open.delete(id);
    this.#generations.delete(id);
  }

  /** The process is gone: everybody hears of it. */
  failAll(error: unknown): void {
    for (const { answers } of this.#open.values()) answers.fail(error);
  }
}
