/**
 * Saving: KV that a request computed goes to the cache, off every request's way.
 *
 *     add ──► asking (which chunks are missing, and where to) ──► writing, a few chunks a step ──► committed
 *                                 finish: the sequence is wanted for something else, the rest is written at once or dropped
 *
 * A job may only copy positions that its sequence still holds: `limit` says up to where, and only ever falls. What is
 * approximate of the sequence (`Sequence.approximateFrom`) is not saved, also when that is learned while a job waits.
 */
import type { Tokens } from "../../../identity/tokens.ts";
import type { LeaseId, ReservedPart, WrittenPart } from "../../../session.ts";
import { within } from "../../../deadline.ts";
import type { CacheUse } from "../../../engine.ts";
import { describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import type { Sequence } from "./sequence.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import type { FindStoredKv, StoredKv } from "./stored-kv.ts";

interface Job {
  readonly sequence: Sequence;
  readonly stored: StoredKv;
  readonly tokens: Tokens;
  /** Chunks still to be written; undefined while the cache is asked. */
  chunks: ReservedPart[] | undefined;
  /** The sequence holds the job's tokens up to here. */
  limit: number;
  /** The cache was asked at this time, in ms. */
  readonly asked: number;
}

export interface SaverOptions {
  readonly stored: FindStoredKv;
  readonly layout: PayloadLayout;
  /** There is something to write: the scheduler shall call {@link Saver.work}. */
  readonly wake: () => void;
  /** Chunks were committed, or (with 0) are no longer waiting to be. */
  readonly onSaved: (chunks: number) => void;
  readonly log: Log;
}

const reserveDeadlineMs = 1000;
const commitDeadlineMs = 5000;
/** Time to finish what was begun when a sequence is wanted for another request. */
const finishMs = 50;
/** How long a sequence is kept for an answer of the cache that is due: usually it takes a few milliseconds. */
const answerMs = 250;
/** Fewer are computed again sooner than the cache answers. */
const leastTokens = 16;
/** Jobs at most; a save beyond that is left out. */
const maxJobs = 64;

export class Saver {
  readonly #options: SaverOptions;
  readonly #jobs: Job[] = [];
  readonly #commits = new Set<Promise<void>>();

  constructor(options: SaverOptions) {
    this.#options = options;
  }

  /** Begins to save the KV of `tokens`, which `sequence` holds from its start. */
  add(sequence: Sequence, tokens: Tokens, use: CacheUse): void {
    const stored = this.#options.stored();
    const limit = Math.min(tokens.length, sequence.approximateFrom ?? tokens.length);
    if (stored === undefined || limit === 0 || this.#jobs.length >= maxJobs) return;
    const job: Job = {
      sequence,
      stored,
      tokens: tokens.slice(0, limit),
      chunks: undefined,
      limit,
      asked: performance.now(),
    };
    this.#jobs.push(job);
    this.#ask(job, use).catch((error: unknown) => {
      this.#drop(job);
      this.#options.log.debug(`KV is not saved: ${describe(error)}`);
    });
  }

  /** Writes chunks for about `budgetMs`. @returns true when there are more that can be written now. */
  work(budgetMs: number): boolean {
    const end = performance.now() + budgetMs;
    for (const job of this.#jobs.filter((job) => job.chunks !== undefined)) {
      this.#write(job, end);
      if (performance.now() >= end) break;
    }
    return this.#jobs.some((job) => job.chunks !== undefined);
  }

  /** KV of some tokens beyond `keep` waits for the cache to say where it goes, and would be lost with the sequence. */
  isAsking(sequence: Sequence, keep: number): boolean {
    const since = performance.now() - answerMs;
    return this.#jobs.some(
      (job) =>
        job.sequence === sequence && job.chunks === undefined && job.limit >= keep + leastTokens && job.asked > since,
    );
  }

  /** Must be called before `sequence` loses its tokens from `keep` on. */
  finish(sequence: Sequence, keep: number): void {
    const end = performance.now() + finishMs;
    for (const job of this.#jobs.filter((job) => job.sequence === sequence)) {
      if (job.chunks !== undefined && job.limit > keep) this.#write(job, end);
      job.limit = Math.min(job.limit, keep);
      this.#abandonLost(job);
    }
  }

  /** Resolves when all that was added is saved or dropped. The caller goes on calling {@link work} meanwhile. */
  get idle(): boolean {
    return this.#jobs.length === 0 && this.#commits.size === 0;
  }

  /** Chunks still to be written or committed; a job whose chunks are not known yet counts as one. */
  get unsavedChunks(): number {
    const waiting = this.#jobs.reduce((sum, { chunks }) => sum + (chunks?.length ?? 1), 0);
    return waiting + this.#commits.size;
  }

  async #ask(job: Job, { salt, tenant }: CacheUse): Promise<void> {
    const { session } = job.stored;
    const asked = session.reserve({ salt, tenant, adapter: "" }, job.tokens, { deadlineMs: reserveDeadlineMs });
    const reservation = await within(asked, 2 * reserveDeadlineMs);
    if (reservation === "late") {
      this.#drop(job);
      asked.then(
        ({ parts }) => session.abandon(leases(parts)),
        (error: unknown) => this.#options.log.debug(`a late reservation failed: ${describe(error)}`),
      );
      return;
    }
    job.chunks = [...reservation.parts];
    this.#abandonLost(job);
    this.#options.wake();
  }

  /** Writes the job's chunks until `end`, at least one, and commits them. */
  #write(job: Job, end: number): void {
    this.#abandonLost(job);
    const written: WrittenPart[] = [];
    const failed: LeaseId[] = [];
    const chunks = job.chunks ?? [];
    while (chunks.length > 0) {
      const chunk = chunks.shift()!; // not empty
      const bytes = this.#copy(job, chunk);
      if (bytes > 0) written.push({ lease: chunk.lease, bytes });
      else failed.push(chunk.lease);
      if (performance.now() >= end) break;
    }
    if (failed.length > 0) job.stored.session.abandon(failed);
    if (written.length > 0) this.#commit(job, written);
    if (chunks.length === 0) this.#drop(job);
  }

  #copy(job: Job, chunk: ReservedPart): number {
    const { sequence, stored } = job;
    const { offset, bytes: room } = chunk.slot;
    const need = payloadBytes(this.#options.layout, chunk.tokenCount);
    if (need > room || !stored.session.holds(chunk.lease)) return 0;
    const { firstToken, tokenCount } = chunk;
    const target = stored.pool.slot(offset, need);
    return sequence.context.copies.save(sequence.id, firstToken, firstToken + tokenCount, target);
  }

  #commit(job: Job, written: readonly WrittenPart[]): void {
    const commit = within(job.stored.session.commit(written, { deadlineMs: commitDeadlineMs }), 2 * commitDeadlineMs)
      .then((answer) => {
        if (answer !== "late") this.#options.onSaved(written.length);
      })
      .catch((error: unknown) => this.#options.log.debug(`KV is not saved: ${describe(error)}`))
      .finally(() => {
        this.#commits.delete(commit);
        this.#options.onSaved(0);
        this.#options.wake();
      });
    this.#commits.add(commit);
  }

  /** Gives back the slots of chunks that the sequence no longer holds, or holds as an approximation. */
  #abandonLost(job: Job): void {
    if (job.chunks === undefined) return;
    const limit = Math.min(job.limit, job.sequence.approximateFrom ?? job.limit);
    const lost = job.chunks.filter((chunk) => chunk.firstToken + chunk.tokenCount > limit);
    if (lost.length > 0) job.stored.session.abandon(leases(lost));
    job.chunks = job.chunks.filter((chunk) => !lost.includes(chunk));
    if (job.chunks.length === 0) this.#drop(job);
  }

  #drop(job: Job): void {
    const index = this.#jobs.indexOf(job);
    if (index === -1) return;
    this.#jobs.splice(index, 1);
    this.#options.onSaved(0);
  }
}

function leases(chunks: readonly ReservedPart[]): LeaseId[] {
  return chunks.map((chunk) => chunk.lease);
}
