/**
 * Server-sent events over what an engine says, with three rules that the plain form lacks:
 *
 * - a gap is filled with comments, so that no proxy takes a long prefill for a dead connection;
 * - frames are made when the client reads, never ahead of it: a slow client holds one frame, not a growing queue;
 * - a client that reads nothing for `stallMs` is cut, because a request that waits for it holds a place in the engine.
 */

import { atDeadline } from "../deadline.ts";

/** A comment: clients skip it, proxies see a living connection. */
export const keepAliveComment = ": keep-alive\n\n";

/** One event. JSON has no raw line breaks, so that one `data:` line is always enough. */
export function dataFrame(value: unknown): string {
  return `data: ${JSON.stringify(value)}\n\n`;
}

/** An async iterator whose next value may be waited for in pieces: nothing is lost when a wait ends early. */
export class PatientReader<T> {
  readonly #source: AsyncIterator<T>;
  #pending: Promise<IteratorResult<T>> | undefined;

  constructor(source: AsyncIterable<T>) {
    this.#source = source[Symbol.asyncIterator]();
  }

  /** The next value, or `"waiting"` when none came within `limitMs`; ask again and it is the same value that is awaited. */
  async next(limitMs: number): Promise<IteratorResult<T> | "waiting"> {
    this.#pending ??= this.#source.next();
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<"waiting">((resolve) => {
      timer = setTimeout(resolve, limitMs, "waiting");
    });
    try {
      const result = await Promise.race([this.#pending, patience]);
      if (result !== "waiting") this.#pending = undefined;
      return result;
    } catch (error) {
      this.#pending = undefined;
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the source. A wait that is under way is given up, and its outcome is nobody's any more. */
  async close(): Promise<void> {
    this.#pending?.catch(() => undefined);
    this.#pending = undefined;
    await this.#source.return?.();
  }
}

export interface EventStreamOptions {
  /** Text frames; ends when the stream ends, and reports its own failures as a frame. */
  readonly frames: AsyncGenerator<string, void>;
  readonly stallMs: number;
  /** The client left, or read nothing for `stallMs`: stop the work behind `frames`. */
  readonly onGone: (reason: "client_gone" | "slow_reader") => void;
}

/** The body of a streaming answer. */
export function eventStream(options: EventStreamOptions): ReadableStream<Uint8Array> {
  const { frames, stallMs, onGone } = options;
  const encoder = new TextEncoder();
  let stall: { cancel(): void } | undefined;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        stall?.cancel();
        const frame = await frames.next();
        if (frame.done) {
          controller.close();
          return;
        }
        controller.enqueue(encoder.encode(frame.value));
        stall = atDeadline(stallMs, () => {
          onGone("slow_reader");
          controller.close();
        });
      },
      async cancel() {
        stall?.cancel();
        onGone("client_gone");
        await frames.return();
      },
    },
    // Nothing is made ahead of the reader.
    { highWaterMark: 0 },
  );
}

/**
 * The headers of a stream to a client that speaks this version of HTTP. Hono's server holds the first frames of other bodies
 * back for a millisecond or two, in case they are all there is.
 */
export function eventStreamHeaders(httpVersion: string | undefined): Record<string, string> {
  return {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    // nginx would otherwise hold the answer back until it is whole.
    "x-accel-buffering": "no",
    ...(httpVersion === "1.1" && { "transfer-encoding": "chunked" }),
  };
}
