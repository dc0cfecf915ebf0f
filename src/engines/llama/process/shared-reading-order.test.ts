/** Who follows whom, decided over stand-ins: nothing is computed here. */
import { expect, test } from "vitest";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { Context } from "./context.ts";
import type { Generation, Phase } from "./generation.ts";
import type { Neighbours } from "./neighbours.ts";
import { ResidentMatches } from "./resident-matches.ts";
import { Sequence } from "./sequence.ts";
import { SharedReading } from "./shared-reading.ts";
import type { RunningSequence } from "./step.ts";

const nowhere = { layout: "unified", truncate: () => {} } as unknown as Context; // deciding moves nothing
const common = someTokens(1000, 1);

interface Stand {
  /** Of the common text, from its start. */
  readonly shared: number;
  /** Of its own behind it. */
  readonly own: number;
  readonly held?: number;
  readonly phase?: Phase;
  readonly save?: boolean;
  readonly read?: boolean;
  readonly salt?: string;
  readonly reused?: number;
}

let seed = 100;

/** Stand-ins in the order in which they came. */
function scene(...stands: Stand[]) {
  const sequences = stands.map((stand, index) => {
    const { shared, own, held = 0, phase = "prefill", reused = 0, save = true, read = true, salt = "" } = stand;
    const sequence = new Sequence(nowhere, index, 3000);
    const tokens = Uint32Array.from([...common.subarray(0, shared), ...someTokens(own, seed++)]);
    const request = { tokens, cache: { salt, read, save } };
    sequence.salt = salt;
    sequence.append(tokens.subarray(0, held));
    sequence.lastUsed = index;
    sequence.generation = { request, phase, reusedTokens: reused } as unknown as Generation; // all that is looked at
    return sequence;
  });
  const taken: number[] = [];
  let isWorthTaking = true;
  const neighbours = {
    isWorthTaking: () => isWorthTaking,
    takeInto: (sequence: Sequence) => {
      taken.push(sequences.indexOf(sequence));
      return Promise.resolve();
    },
  } as unknown as Neighbours; // all that is asked of it
  const matches = new ResidentMatches(undefined);
  const onTaken = (_: Sequence, generation: Generation) => {
    generation.phase = "prefill";
  };
  const reading = new SharedReading({ sequences, neighbours, matches, sliceTokens: undefined, onTaken });
  const running = (): RunningSequence[] =>
    sequences.map(({ lastUsed }, sequence) => ({ sequence, lastUsed }) as unknown as RunningSequence); // as above
  return {
    sequences,
    taken,
    reading,
    notWorthTaking: () => (isWorthTaking = false),
    phases: () => {
      reading.arrange();
      return sequences.map(({ generation }) => generation?.phase);
    },
    turns: () => reading.inTurn(running()).map(({ lastUsed }) => lastUsed),
  };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test("of those that begin alike the one with the least left reads, of several the first; others read on", () => {
  expect(scene({ shared: 500, own: 5 }, { shared: 500, own: 5 }).phases()).toEqual(["prefill", "following"]);
  expect(scene({ shared: 500, own: 300 }, { shared: 500, own: 5 }).phases()).toEqual(["following", "prefill"]);
  expect(scene({ shared: 500, own: 5 }, { shared: 0, own: 900 }).phases()).toEqual(["prefill", "prefill"]);
});

test("few tokens are no reason to begin to follow, and none to stop before they are read", () => {
  expect(scene({ shared: 63, own: 5 }, { shared: 63, own: 9 }).phases()).toEqual(["prefill", "prefill"]);
  const one = scene({ shared: 500, own: 5 }, { shared: 500, own: 9 });
  const [leader] = one.sequences;
  expect(one.phases()).toEqual(["prefill", "following"]);
  leader!.append(common.subarray(0, 480));
  expect(one.phases()).toEqual(["prefill", "following"]);
  leader!.append(common.subarray(480, 500));
  expect(one.phases()).toEqual(["prefill", "loading"]);
  expect(one.taken).toEqual([1]);
});

test("the last token of a prompt is not waited for: it is computed in any case", () => {
  const one = scene({ shared: 900, own: 5, held: 420 }, { shared: 500, own: 0 });
  expect(one.phases()).toEqual(["prefill", "following"]);
  one.sequences[0]!.append(common.subarray(420, 500));
  expect(one.phases()).toEqual(["prefill", "loading"]);
});

test("who loads or answers is followed by nobody, and what it has is taken rather than waited for", () => {
  expect(scene({ shared: 500, own: 5, phase: "loading" }, { shared: 500, own: 9 }).phases()).toEqual([
    "loading",
    "prefill",
  ]);
  const answering = scene(
    { shared: 500, own: 0, held: 500, phase: "decoding" },
    { shared: 500, own: 9 },
    { shared: 500, own: 9 },
  );
  expect(answering.phases()).toEqual(["decoding", "prefill", "prefill"]);
});

test("a reading that is over is taken over by all who followed, one after the other", async () => {
  const one = scene({ shared: 500, own: 5 }, { shared: 500, own: 9 }, { shared: 500, own: 9 }, { shared: 500, own: 9 });
  one.phases();
  one.sequences[0]!.append(common.subarray(0, 500));
  expect(one.phases()).toEqual(["prefill", "loading", "loading", "loading"]);
  expect(one.taken).toEqual([1]);
  for (let turns = 0; turns < 5; turns += 1) await turn();
  expect(one.taken).toEqual([1, 2, 3]);
});

test("when the one that reads leaves, one goes on and the others follow that one", async () => {
  const one = scene({ shared: 500, own: 5 }, { shared: 500, own: 9 }, { shared: 500, own: 10 });
  one.phases();
  one.sequences[0]!.append(common.subarray(0, 200));
  one.sequences[0]!.generation = undefined;
  expect(one.phases()).toEqual([undefined, "loading", "following"]);
  expect(one.taken).toEqual([1]);
  await turn();
  expect(one.phases()).toEqual([undefined, "prefill", "following"]);
});

test("where taking over is not worth it, or what is read is not to be trusted, nobody follows", () => {
  const slow = scene({ shared: 500, own: 5 }, { shared: 500, own: 9 });
  slow.notWorthTaking();
  expect(slow.phases()).toEqual(["prefill", "prefill"]);
  const tainted = scene({ shared: 500, own: 5 }, { shared: 500, own: 9 });
  tainted.phases();
  tainted.sequences[0]!.taint(0);
  expect(tainted.phases()).toEqual(["prefill", "loading"]);
});

test("nobody follows across salts, or one that leaves no trace, and who reads nothing follows nobody", () => {
  const phasesOf = (first: Partial<Stand>, second: Partial<Stand>) =>
    scene({ shared: 500, own: 5, ...first }, { shared: 500, own: 5, ...second }).phases();
  expect(phasesOf({ salt: "a" }, { salt: "a" })).toEqual(["prefill", "following"]);
  expect(phasesOf({ salt: "a" }, { salt: "b" })).toEqual(["prefill", "prefill"]);
  expect(phasesOf({ save: false }, {})).toEqual(["prefill", "prefill"]);
  expect(phasesOf({}, { read: false })).toEqual(["prefill", "prefill"]);
});

test("who leaves no trace follows until it has computed something itself", () => {
  const silent = (held: number, reused: number) =>
    scene({ shared: 500, own: 5 }, { shared: 500, own: 900, save: false, held, reused }).phases()[1];
  expect([silent(0, 0), silent(100, 100), silent(100, 0)]).toEqual(["following", "following", "prefill"]);
});

test("whoever reads for others has the turn of the first of them, through all who follow", () => {
  const one = scene(
    { shared: 900, own: 500 },
    { shared: 0, own: 3000 },
    { shared: 900, own: 100 },
    { shared: 600, own: 5 },
  );
  expect(one.phases()).toEqual(["following", "prefill", "following", "prefill"]);
  expect(one.turns()).toEqual([0, 1, 0, 0]);
  one.sequences[3]!.generation = undefined;
  one.phases();
  expect(one.turns()).toEqual([0, 1, 0, 3]);
});
