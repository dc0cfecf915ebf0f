import { expect, test } from "vitest";
import { greedy } from "../../../engine.ts";
import type { EngineRequest } from "../messages.ts";
import { TurnQueue } from "../turn-queue.ts";
import { nextAdmission } from "./admission.ts";
import type { Waiting } from "./admission.ts";
import type { Context } from "./context.ts";
import type { Generation } from "./generation.ts";
import { Sequence } from "./sequence.ts";

const nowhere = {} as Context; // deciding moves nothing
const options = { canReuse: true, sliceTokens: undefined };

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
function order(queue: TurnQueue<Waiting>, sequences: Sequence[]): number[] {
  const ids: number[] = [];
  for (;;) {
    const admission = nextAdmission(queue, sequences, options);
    if (admission === undefined) return ids;
    queue.take(admission.tenant);
    admission.placement.sequence.generation = generationOf(admission.request);
    ids.push(admission.request.id);
  }
}

test("nobody waits, or nothing is free: nobody is admitted", () => {
  expect(nextAdmission(queueOf(), serving(null), options)).toBeUndefined();
  expect(nextAdmission(queueOf(request(1, "a")), serving("a", "b"), options)).toBeUndefined();
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
  const { placement, ...who } = nextAdmission(queue, sequences, options)!; // one waits, two are free
  expect(who).toMatchObject({ tenant: "a", accepted: 7, request: { id: 7 } });
  expect([sequences.indexOf(placement.sequence), placement.prefix, placement.donor]).toEqual([2, 3, undefined]);
  expect(queue.size).toBe(1);
});

test("nothing resident is used where the request or the model's family forbids it", () => {
  const prefix = (read: boolean, canReuse: boolean) => {
    const [sequence] = serving(null);
    sequence!.append(Uint32Array.of(1, 2, 3));
    const queue = queueOf(request(1, "a", { read }));
    return nextAdmission(queue, [sequence!], { ...options, canReuse })!.placement.prefix; // one waits, one is free
  };
  expect([prefix(true, true), prefix(false, true), prefix(true, false)]).toEqual([3, 0, 0]);
});
