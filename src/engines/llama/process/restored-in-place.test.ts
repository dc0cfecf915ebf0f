/** Restoring where a text before has left its cells, on a CPU and on a device, which is this machine's processor here as well. */
import { beforeAll, beforeEach, describe, expect, test } from "vitest";
import { library, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import { StreamContext } from "../../../../test/support/stream-context.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { Model } from "../model/model.ts";
import type { Context } from "./context.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";

const text = someTokens(96, 1);
const half = 48;
const other = someTokens(130, 2);

let model: Model;

beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

describe.each(["streams", "device"] as const)("%s:", (cells) => {
  let context: Context;
  let layout: PayloadLayout;
  let compute: StreamContext["compute"];
  let saved: StreamContext["saved"];
  /** What computing the text gives, in two payloads. */
  let computed: readonly Uint8Array[];
  /** Sequences that llama.cpp was given a state of, or a copy. */
  let made: number[];

  beforeEach(() => {
    made = [];
    const { functions } = library;
    const listening = Object.assign(Object.create(library) as typeof library, {
      functions: {
        ...functions,
        writeState: (...args: Parameters<typeof functions.writeState>) => {
          made.push(args[3]);
          return functions.writeState(...args);
        },
        copyTokens: (...args: Parameters<typeof functions.copyTokens>) => {
          made.push(args[2]);
          functions.copyTokens(...args);
        },
      },
    });
    const streams = new StreamContext(model, cells, listening);
    ({ context, layout } = streams);
    [compute, saved] = [streams.compute.bind(streams), streams.saved.bind(streams)];
    compute(0, text);
    computed = [saved(0, 0, half), saved(0, half, text.length)];
    made = [];
  });

  const place = (from: number, to: number) => ({ from, to, tokenCount: to - from });

  /** Lets a sequence hold another text, and then the first `from` tokens of it or none. */
  function holdOther(sequence: number, { from = 0, tokens = other } = {}): void {
    compute(sequence, tokens);
    context.truncate(sequence, from);
    expect(context.length(sequence)).toBe(from);
  }

  test.each([
    { title: "nobody else computes anything", between: () => {} },
    { title: "others compute meanwhile", between: () => (context.truncate(2, 0), compute(2, someTokens(5, 2))) },
    { title: "others save meanwhile", between: () => void saved(0, 3, 9) },
  ])("what was restored is what was computed, and so is what follows it: $title", async ({ between }) => {
    holdOther(1);
    const restoring = await context.copies.restore(1, 0, text.length);
    expect(restoring.add(computed[0]!, place(0, half))).toBe("restored");
    await restoring.arrived();
    between();
    expect(restoring.add(computed[1]!, place(half, text.length))).toBe("restored");
    await restoring.arrived();
    between();
    expect(restoring.end()).toBe(true);
    expect(made).toEqual([]);
    expect(context.length(1)).toBe(text.length);
    expect([saved(1, 0, half), saved(1, half, text.length)]).toEqual(computed);
    compute(1, someTokens(9, 3), text.length);
    compute(0, someTokens(9, 3), text.length);
    expect(context.length(1)).toBe(text.length + 9);
    expect(saved(1, text.length, text.length + 9)).toEqual(saved(0, text.length, text.length + 9));
  });

  test("a text is restored behind what its sequence holds, and no further than it came", async () => {
    holdOther(1, { tokens: Uint32Array.from([...text.subarray(0, 20), ...other]), from: 20 });
    const restoring = await context.copies.restore(1, 20, text.length);
    expect(restoring.add(computed[0]!, { from: 20, to: half, tokenCount: half })).toBe("restored");
    expect(restoring.end()).toBe(true);
    expect(made).toEqual([]);
    expect(context.length(1)).toBe(half);
    expect(context.copies.save(1, 0, half + 1, new Uint8Array(payloadBytes(layout, half + 1)))).toBe(0);
    compute(1, text.subarray(half), half);
    compute(2, text.subarray(0, 20));
    compute(2, text.subarray(20, half), 20);
    compute(2, text.subarray(half), half);
    expect(saved(1, half, text.length)).toEqual(saved(2, half, text.length));
  });

  test("what is dropped leaves what the sequence held, and its next text is computed as ever", async () => {
    for (const sequence of [1, 2]) holdOther(sequence, { from: 20 });
    const restoring = await context.copies.restore(1, 20, half);
    expect(restoring.add(computed[0]!, { from: 20, to: half, tokenCount: half })).toBe("restored");
    restoring.drop();
    expect(context.length(1)).toBe(20);
    for (const sequence of [1, 2]) compute(sequence, text, 20);
    expect(saved(1, 0, 116)).toEqual(saved(2, 0, 116));
  });

  test("where cells do not suffice, all is made anew", async () => {
    holdOther(1, { tokens: other.subarray(0, text.length - 1) });
    const restoring = await context.copies.restore(1, 0, text.length);
    expect(restoring.add(computed[0]!, place(0, half))).toBe("restored");
    expect(restoring.add(computed[1]!, place(half, text.length))).toBe("restored");
    expect(restoring.end()).toBe(true);
    expect(made).toContain(1);
    expect([saved(1, 0, half), saved(1, half, text.length)]).toEqual(computed);
  });

  test("where cells do not suffice, what the sequence holds stays", async () => {
    compute(1, text.subarray(0, 20));
    const before = saved(1, 0, 20);
    const restoring = await context.copies.restore(1, 20, text.length);
    expect(restoring.add(computed[0]!, { from: 20, to: half, tokenCount: half })).toBe("restored");
    expect(restoring.add(computed[1]!, place(half, text.length))).toBe("restored");
    expect(restoring.end()).toBe(true);
    expect(saved(1, 0, 20)).toEqual(before);
    expect(saved(1, 20, half)).toEqual(saved(0, 20, half));
    expect(saved(1, half, text.length)).toEqual(computed[1]);
  });

  test("more than was said is refused", async () => {
    holdOther(1);
    const restoring = await context.copies.restore(1, 0, half - 1);
    expect(restoring.add(computed[0]!, place(0, half))).toBe("no room");
    expect(restoring.end()).toBe(true);
    expect(context.length(1)).toBe(0);
  });
});

test("a stream that is to become a copy is one before rows are put where it was copied from", async () => {
  const streams = new StreamContext(model, "device");
  const { context } = streams;
  const saved = (sequence: number) => streams.saved(sequence, 0, half);
  streams.compute(0, other);
  const ofOther = saved(0);
  streams.compute(1, text);
  const ofText = saved(1);
  context.truncate(2, 0);
  context.share(0, 2, 0, half);
  context.truncate(0, 0);
  const restoring = await context.copies.restore(0, 0, half);
  expect(restoring.add(ofText, { from: 0, to: half, tokenCount: half })).toBe("restored");
  expect(restoring.end()).toBe(true);
  expect(saved(2)).toEqual(ofOther);
  expect(saved(0)).toEqual(ofText);
});
