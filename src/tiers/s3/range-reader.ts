/**
 * Reads of payloads, put together: chunks that lie side by side in a data object and are wanted at the same time come in one request,
 * as long as that is not large. Large ones come side by side, over connections of their own.
 *
 *     wanted    │ chunk 3 │ chunk 4 │ chunk 5 │        │ chunk 7 │
 *     requests  └────────── one ──────────────┘        └── one ──┘
 */
import { setMaxListeners } from "node:events";
import { RepriseError } from "../../errors.ts";
import type { ObjectFacts } from "./s3-client.ts";

/** Bytes in a row: to a place, or to nowhere. */
export type Span = Uint8Array | { readonly skippedBytes: number };

export interface RangeRead {
  readonly name: string;
  readonly from: number;
  readonly spans: readonly Span[];
  readonly signal: AbortSignal;
}

export type ReadRange = (
  name: string,
  range: { from: number; bytes: number; makeSink: () => (piece: Buffer) => void },
  signal: AbortSignal,
) => Promise<ObjectFacts | undefined>;

interface Waiting extends RangeRead {
  readonly bytes: number;
  /** It has ended for whoever asked: its memory is not touched any more. */
  ended: boolean;
  readonly settle: (outcome: ObjectFacts | undefined | RepriseError) => void;
}

/** A request is worth as many bytes as a connection moves in its latency: some 50 ms at 80 MB/s. */
const mostMergedBytes = 4 * 1024 * 1024;

export class RangeReader {
  readonly #read: ReadRange;
  #waiting: Waiting[] = [];

  constructor(read: ReadRange) {
    this.#read = read;
  }

  /** @returns undefined when it is gone. @throws RepriseError TIER_UNAVAILABLE; however it ends, nothing touches the spans */
  read(asked: RangeRead): Promise<ObjectFacts | undefined> {
    const { signal } = asked;
    return new Promise((resolve, reject) => {
      const waiting: Waiting = {
        ...asked,
        bytes: asked.spans.reduce((sum, span) => sum + lengthOf(span), 0),
        ended: false,
        settle(outcome) {
          if (waiting.ended) return;
          waiting.ended = true;
          signal.removeEventListener("abort", onAbort);
          if (outcome instanceof Error) reject(outcome);
          else resolve(outcome);
        },
      };
      const onAbort = () => waiting.settle(new RepriseError("TIER_UNAVAILABLE", "S3 did not answer a read in time"));
      setMaxListeners(0, signal);
      signal.addEventListener("abort", onAbort);
      if (signal.aborted) return onAbort();
      if (this.#waiting.length === 0) setImmediate(() => this.#flush());
      this.#waiting.push(waiting);
    });
  }

  #flush(): void {
    const waiting = this.#waiting.filter(({ ended }) => !ended);
    this.#waiting = [];
    waiting.sort((a, b) => (a.name === b.name ? a.from - b.from : a.name < b.name ? -1 : 1));
    let merged: Waiting[] = [];
    let bytes = 0;
    for (const each of waiting) {
      const last = merged.at(-1);
      const isNext = last !== undefined && last.name === each.name && last.from + last.bytes === each.from;
      if (merged.length > 0 && (!isNext || bytes + each.bytes > mostMergedBytes)) {
        void this.#send(merged, bytes);
        [merged, bytes] = [[], 0];
      }
      merged.push(each);
      bytes += each.bytes;
    }
    if (merged.length > 0) void this.#send(merged, bytes);
  }

  async #send(merged: readonly Waiting[], bytes: number): Promise<void> {
    const all = new AbortController();
    const onAbort = () => {
      if (merged.every(({ signal }) => signal.aborted)) all.abort();
    };
    for (const { signal } of merged) signal.addEventListener("abort", onAbort);
    onAbort();
    const [first] = merged;
    let outcome: ObjectFacts | undefined | RepriseError;
    try {
      const range = { from: first!.from, bytes, makeSink: () => scatter(merged) }; // one at least
      outcome = await this.#read(first!.name, range, all.signal);
    } catch (error) {
      outcome =
        error instanceof RepriseError
          ? error
          : new RepriseError("TIER_UNAVAILABLE", "S3: a read failed", { cause: error });
    }
    for (const { signal } of merged) signal.removeEventListener("abort", onAbort);
    for (const each of merged) each.settle(outcome);
  }
}

/** Puts bytes as they come where they belong, from the first span on. */
function scatter(merged: readonly Waiting[]): (piece: Buffer) => void {
  const spans = merged.flatMap((waiting) => waiting.spans.map((span) => ({ span, waiting })));
  let [number, at] = [0, 0];
  return (piece) => {
    for (let taken = 0; taken < piece.length;) {
      const { span, waiting } = spans[number]!; // no more bytes come than there are spans for
      const part = piece.subarray(taken, taken + lengthOf(span) - at);
      if (span instanceof Uint8Array && !waiting.ended) span.set(part, at);
      taken += part.length;
      at += part.length;
      if (at < lengthOf(span)) continue;
      number += 1;
      at = 0;
    }
  };
}

function lengthOf(span: Span): number {
  return span instanceof Uint8Array ? span.length : span.skippedBytes;
}
