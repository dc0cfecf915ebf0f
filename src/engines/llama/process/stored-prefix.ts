/**
 * Loading the stored part of a prompt into a sequence, as long as that beats computing it: the cache knows how fast its tiers
 * are and says how much of a hit is worth it. What comes is copied at once, while the chunks after it are still being read.
 */
import type { LoadedPart } from "../../../session.ts";
import type { Root } from "../../../identity/keys.ts";
import type { Tokens } from "../../../identity/tokens.ts";
import { within } from "../../../deadline.ts";
import { describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { RestoredPrefix } from "./restored-prefix.ts";
import type { Sequence } from "./sequence.ts";
import type { Generation } from "./generation.ts";
import { isPayload } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import type { StoredKv } from "./stored-kv.ts";

export interface LoadOptions {
  readonly stored: StoredKv;
  readonly layout: PayloadLayout;
  readonly sequence: Sequence;
  readonly generation: Generation;
  /** The measured cost of computing a token, in milliseconds. */
  readonly computeMsPerToken: number;
  /** Deterministic mode: whole chunks only. */
  readonly wholeChunks: boolean;
  /** Nobody else has anything to do. */
  readonly isAlone: () => boolean;
  /** Frees cells that nobody runs in; called when a payload finds no room. @returns false when there are none */
  readonly makeRoom: () => boolean;
  readonly log: Log;
}

/** Asking costs a round trip: it is not worth it for fewer tokens. */
const worthwhileTokens = 16;
/** An answer may take as long as computing would, within these bounds: a shared store takes some round trips, and a second is its limit. */
const shortestLookupMs = 100;
const longestLookupMs = 1000;
/** A load may take as long as computing would, within these bounds. */
const shortestLoadMs = 20;
const longestLoadMs = 10_000;
/** Beyond a deadline given to the cache: after that it hangs. */
const graceMs = 50;
/** Copying holds up everybody else's next token: it pauses after this long. */
const copyMs = 20;
/** A device's link is others' as well: while they answer it gets no more at a time. */
const copyBytes = 64 * 2 ** 20;
/** By then the next step runs. What the server does for a message takes it a processor, and a step spins until it has all of them. */
const afterStepBeganMs = 2;

/** Appends what is stored of the generation's prompt to its sequence. Never throws: what fails is computed. */
export async function loadStoredPrefix(options: LoadOptions): Promise<void> {
  const { generation, sequence } = options;
  const started = performance.now();
  try {
    const prompt = loadable(generation.request.tokens, options);
    const least = Math.max(
      worthwhileTokens,
      sequence.context.copies.restoreMs(sequence.id, prompt.length) / options.computeMsPerToken,
    );
    if (prompt.length - sequence.count < least) return;
    const worthTokens = await lookup(options, prompt);
    const asked = performance.now();
    const gain = worthTokens - sequence.count;
    if (gain < least || generation.cancelled) return;
    const deadlineMs = Math.min(longestLoadMs, Math.max(shortestLoadMs, gain * options.computeMsPerToken));
    await load(options, prompt.subarray(0, worthTokens), deadlineMs);
    const [askedMs, loadMs] = [asked - started, performance.now() - asked].map((ms) => ms.toFixed(1));
    const line = `${sequence.count} of ${worthTokens} tokens are there: asked ${askedMs} ms, loaded ${loadMs} ms`;
    setTimeout(() => options.log.debug(line), afterStepBeganMs);
  } catch (error) {
    options.log.debug(`stored KV is not used: ${describe(error)}`);
  } finally {
    generation.loadMs = performance.now() - started;
  }
}

/** All but the last token, whose logits are needed; in deterministic mode whole chunks of that. */
function loadable(tokens: Tokens, options: LoadOptions): Tokens {
  const most = tokens.length - 1;
  const { chunkTokens } = options.stored.session;
  return tokens.subarray(0, options.wholeChunks ? Math.floor(most / chunkTokens) * chunkTokens : most);
}

/** @returns tokens of the stored prefix that are worth loading; where moved text begins it ends, since none is placed here */
async function lookup(options: LoadOptions, prompt: Tokens): Promise<number> {
  const { stored, computeMsPerToken, sequence, generation } = options;
  const root = rootOf(generation);
  const computeMs = (prompt.length - sequence.count) * computeMsPerToken;
  const deadlineMs = Math.min(longestLookupMs, Math.max(shortestLookupMs, computeMs));
  const answer = await within(
    stored.session.lookup(root, prompt, { deadlineMs, computeMsPerToken }),
    deadlineMs + graceMs,
    generation.left,
  );
  return answer === "late" ? 0 : Math.min(answer.worthTokens, answer.hitTokens);
}

function rootOf({ request: { cache } }: Generation): Root {
  return { salt: cache.salt, tenant: cache.tenant, adapter: "" };
}

async function load(options: LoadOptions, prompt: Tokens, deadlineMs: number): Promise<void> {
  const { generation, sequence, stored, computeMsPerToken } = options;
  const waiting = { deadlineMs, computeMsPerToken, signal: generation.left };
  const batches = stored.session.load(rootOf(generation), prompt, sequence.count, waiting)[Symbol.asyncIterator]();
  // The cache reads while cells are made.
  const first = batches.next();
  first.catch(() => {}); // said when it is waited for
  let prefix;
  try {
    prefix = await RestoredPrefix.begin(sequence, prompt);
  } catch (error) {
    giveUp(options, { batches, next: first });
    throw error;
  }
  try {
    await addStored(options, { batches, next: first }, { prefix, end: performance.now() + deadlineMs });
  } finally {
    if (generation.cancelled) prefix.drop();
    else if (!prefix.end()) {
      generation.forgetReused();
      options.log.warn("llama.cpp did not take stored KV; all of the prompt is computed");
    }
  }
}

/** Where it goes, and until when. */
interface Into {
  readonly prefix: RestoredPrefix;
  readonly end: number;
}

type Batch = readonly LoadedPart[];

/** Batches on their way, of which the next one was asked for. */
interface Coming {
  readonly batches: AsyncIterator<Batch, void>;
  readonly next: Promise<IteratorResult<Batch, void>>;
}

async function addStored(options: LoadOptions, coming: Coming, into: Into): Promise<void> {
  const { batches } = coming;
  for (let { next } = coming; ; next = batches.next()) {
    const result = await within(next, Math.max(1, into.end + graceMs - performance.now()), options.generation.left);
    if (result === "late") {
      giveUp(options, { batches, next });
      return;
    }
    if (result.done === true) return;
    if ((await attachAll(options, result.value, into)) === "enough") {
      await within(Promise.resolve(batches.return?.()), graceMs);
      return;
    }
  }
}

/** Copies a batch and gives it back. "enough": what follows is to be computed. */
async function attachAll(options: LoadOptions, batch: Batch, { prefix, end }: Into): Promise<"more" | "enough"> {
  const { generation, stored } = options;
  let pauseAt = performance.now() + copyMs;
  let given = 0;
  let bytes = 0;
  // A device may read them until they have arrived. One window is on its way while the next one is begun.
  let before: Promise<void> = Promise.resolve();
  const giveBack = async (to: number) => {
    const leases = batch.slice(given, to).map(({ lease }) => lease);
    const arrived = prefix.arrived().finally(() => setTimeout(() => stored.session.release(leases), afterStepBeganMs));
    [given, bytes] = [to, 0];
    arrived.catch(() => {}); // said when it is waited for
    await before;
    before = arrived;
  };
  for (const [i, chunk] of batch.entries()) {
    if (generation.cancelled || !attach(options, chunk, prefix) || performance.now() > end) {
      await giveBack(batch.length);
      await before;
      return "enough";
    }
    bytes += chunk.slot.bytes;
    if (performance.now() > pauseAt || (bytes > copyBytes && !options.isAlone())) {
      await giveBack(i + 1);
      await new Promise((resolve) => setImmediate(resolve));
      pauseAt = performance.now() + copyMs;
    }
  }
  await giveBack(batch.length);
  await before;
  return "more";
}

/** Nobody waits for what comes now: it is leased, and given back unread. */
function giveUp(options: LoadOptions, { batches, next }: Coming): void {
  next.then(
    (result) => {
      if (result.done !== true) options.stored.session.release(result.value.map(({ lease }) => lease));
    },
    (error: unknown) => options.log.debug(`a late load failed: ${describe(error)}`),
  );
  void batches.return?.(); // ends when it ends
}

/** Copies a chunk of the stored prefix. @returns false when the rest is to be computed. */
function attach(options: LoadOptions, chunk: LoadedPart, prefix: RestoredPrefix): boolean {
  const { sequence, generation, stored } = options;
  const from = prefix.count;
  const to = chunk.target + chunk.take;
  if (chunk.kind !== "exact" || chunk.target > from || to <= from) return false;
  if (options.wholeChunks && chunk.take < stored.session.chunkTokens) return false;
  if (!stored.session.holds(chunk.lease)) return false;
  const { offset, bytes } = chunk.slot;
  const payload = stored.pool.slot(offset, bytes);
  if (!isPayload(options.layout, payload, chunk)) {
    options.log.warn(`a stored chunk at token ${chunk.firstToken} is not KV of this space; it is not used`);
    return false;
  }
  const place = { tokenCount: chunk.tokenCount, to };
  while (prefix.add(payload, place) === "no room") if (!options.makeRoom()) return false;
  if (options.wholeChunks) sequence.markReproducible();
  generation.countReused(chunk.tier, to - from);
  return true;
}
