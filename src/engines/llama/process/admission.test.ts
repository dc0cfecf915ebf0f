import { expect, test } from "vitest";
import { greedy } from "../../../engine.ts";
import type { EngineRequest } from "../messages.ts";
import { TurnQueue } from "../turn-queue.ts";
import { nextAdmission } from "./admission.ts";
import type { AdmissionOptions, Waiting } from "./admission.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { ResidentMatches } from "./resident-matches.ts";
import { Sequence } from "./sequence.ts";

const nowhere = { layout: "unified", truncate: () => {} } as unknown as Context; // deciding moves nothing
const options = () => ({
  canReuse: true,
  sliceTokens: undefined,
  matches: new ResidentMatches(undefined),
  storedTokens: () => 0,
});

function request(id: number, tenant: string, change: { read?: boolean; prompt?: number[] } = {}): EngineRequest {
  const { read = true, prompt = [1, 2, 3, 4] } = change;
  const cache = { salt: "", tenant, read, save: true };
  return { id, tokens: Uint32Array.from(prompt), sampling: greedy, maxTokens: 8, stop: [], cache };
}

/** Sequences that serve these tenants; null is a free one. */
function serving(...tenants: (string | null)[]): Sequence[] {
  return tenants.map((tenant, id) => {
    const sequence = new Sequence(nowhere, id, 100);
    if (tenant !== null) sequence.generation = generationOf(request(1000 + id, tenant));
    return sequence;
  });
}

function generationOf(request: EngineRequest): Generation {
  return { request } as unknown as Generation; // all that is looked at
}

function queueOf(...requests: EngineRequest[]): TurnQueue<Waiting> {
  const queue = new TurnQueue<Waiting>();
  for (const each of requests) queue.add(each.cache.tenant ?? "", { request: each, accepted: each.id });
  return queue;
}

/** Who is admitted, in order, until no sequence is free. */
function order(queue: TurnQueue<Waiting>, sequences: Sequence[], change: Partial<AdmissionOptions> = {}): number[] {
  const ids: number[] = [];
  for (;;) {
    const admission = nextAdmission(queue, sequences, { ...options(), ...change });
    if (admission === undefined) return ids;
    const { tenant, waiting, placement } = admission;
    queue.take(tenant, waiting);
    placement.sequence.generation = generationOf(waiting.request);
    ids.push(waiting.request.id);
  }
}

test("nobody waits, or nothing is free: nobody is admitted", () => {
  expect(nextAdmission(queueOf(), serving(null), options())).toBeUndefined();
  expect(nextAdmission(queueOf(request(1, "a")), serving("a", "b"), options())).toBeUndefined();
});

test("free sequences go to the tenants with the fewest, however many of another wait", () => {
  const waiting = [request(1, "a"), request(2, "a"), request(3, "a"), request(10, "b"), request(20, "c")];
  expect(order(queueOf(...waiting), serving("a", null, null, null))).toEqual([10, 20, 1]);
  expect(order(queueOf(...waiting), serving(null, null, null, null))).toEqual([1, 10, 20, 2]);
  expect(order(queueOf(...waiting), serving("b", "c", null))).toEqual([1]);
});

test("an admission says where the request goes and what of its prompt is there, and takes nothing from the queue", () => {
  const sequences = serving("b", null, null);
  sequences[2]!.append(Uint32Array.of(1, 2, 3));
  const queue = queueOf(request(7, "a"));
  const { placement, ...who } = nextAdmission(queue, sequences, options())!; // one waits, two are free
  expect(who).toMatchObject({ tenant: "a", waiting: { accepted: 7, request: { id: 7 } } });
  expect([sequences.indexOf(placement.sequence), placement.prefix, placement.donor]).toEqual([2, 3, undefined]);
  expect(queue.size).toBe(1);
});

test("nothing resident is used where the request or the model's family forbids it", () => {
  const prefix = (read: boolean, canReuse: boolean) => {
    const [sequence] = serving(null);
    sequence!.append(Uint32Array.of(1, 2, 3));
    const queue = queueOf(request(1, "a", { read }));
    return nextAdmission(queue, [sequence!], { ...options(), canReuse })!.placement.prefix; // one waits, one is free
  };
  expect([prefix(true, true), prefix(false, true), prefix(true, false)]).toEqual([3, 0, 0]);
});

const known = (id: number, tenant = "a", beginning = 1): EngineRequest =>
  request(id, tenant, { prompt: [...Array.from({ length: 80 }, () => beginning), id] });

test("of a tenant the request with the fewest tokens left comes first: resident, stored, or short; of several the oldest", () => {
  const waiting = [known(1, "a", 1), known(2, "a", 2), known(3, "a", 3), request(4, "a"), known(5, "a", 2)];
  const sequences = serving(null);
  sequences[0]!.append(known(0, "", 2).tokens);
  expect(order(queueOf(...waiting), sequences)).toEqual([2]);
  expect(order(queueOf(...waiting), serving(null))).toEqual([4]);
  const storedTokens = ({ id }: EngineRequest) => (id === 3 ? 80 : 0);
  expect(order(queueOf(...waiting), serving(null), { storedTokens })).toEqual([3]);
  expect(order(queueOf(...waiting), serving(null), { canReuse: false })).toEqual([1]);
});

test("a request that reads nothing is a miss, and so is what a request that leaves no trace runs in", () => {
  const waiting = [
    known(1, "a", 1),
    { ...known(2, "a", 2), cache: { salt: "", tenant: "a", read: false, save: true } },
  ];
  const sequences = serving("b", null);
  sequences[0]!.append(known(0, "", 2).tokens);
  expect(order(queueOf(...waiting), sequences)).toEqual([1]);
  const readable = [known(1, "a", 1), known(2, "a", 2)];
  const again = serving("b", null);
  again[0]!.append(known(0, "", 2).tokens);
  expect(order(queueOf(...readable), again)).toEqual([2]);
  const silent = serving("b", null);
  silent[0]!.append(known(0, "", 2).tokens);
  const { request: running } = silent[0]!.generation!;
  silent[0]!.generation = generationOf({ ...running, cache: { ...running.cache, save: false } });
  expect(order(queueOf(...readable), silent)).toEqual([1]);
});

test("one turn in four of a tenant is its oldest's, however many known texts come", () => {
  const queue = queueOf(known(1, "a", 1), known(100, "b", 2), ...[2, 3, 4, 5, 6].map((id) => known(id, "a", 2)));
  const storedTokens = ({ id }: EngineRequest) => (id === 1 ? 0 : 80);
  const served: number[] = [];
  while (queue.size > 0) {
    const [id] = order(queue, serving(null), { storedTokens });
    served.push(id!); // one waits, one is free
  }
  expect(served).toEqual([2, 100, 3, 4, 1, 5, 6]);
});

test("a sequence that holds the conversation of one that waits is kept for it", () => {
  const chat = known(9, "b", 2);
  const longer = { ...chat, tokens: Uint32Array.from([...chat.tokens, ...Array.from({ length: 50 }, () => 7)]) };
  const free = () => {
    const sequences = serving(null, null);
    sequences[0]!.append(chat.tokens);
    sequences[1]!.append(known(0, "", 3).tokens);
    sequences[1]!.lastUsed = 5;
    return sequences;
  };
  const placed = (...waiting: EngineRequest[]) => {
    const sequences = free();
    const { placement } = nextAdmission(queueOf(...waiting), sequences, options())!; // some wait, two are free
    return sequences.indexOf(placement.sequence);
  };
  expect(placed(known(1, "a", 1))).toBe(0);
  expect(placed(known(1, "a", 1), longer)).toBe(1);
});
