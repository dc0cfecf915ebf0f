/** Streams on a device, where the device is this machine's processor: the same calls, and rows that ggml copies. */
import { beforeAll, beforeEach, expect, test } from "vitest";
import { loadTiny } from "../../../../test/support/scheduler-rig.ts";
import { StreamContext } from "../../../../test/support/stream-context.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { ContextPointer, LlamaFunctions, MemoryPointer } from "../../../ffi/llama.ts";
import type { Model } from "../model/model.ts";
import type { Context } from "./context.ts";
import { DeviceCopies } from "./device-copies.ts";
import type { KvRows } from "./kv-rows.ts";
import { payloadBytes } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StreamCells } from "./stream-cells.ts";

const text = someTokens(96, 1);
const half = 48;

let model: Model;
let context: Context;
let layout: PayloadLayout;
let compute: StreamContext["compute"];
let saved: StreamContext["saved"];
/** What computing the text gives, in two payloads. */
let computed: readonly Uint8Array[];

beforeAll(() => {
  model = loadTiny({ family: "llama" });
});

beforeEach(() => {
  const streams = new StreamContext(model, "device");
  ({ context, layout } = streams);
  [compute, saved] = [streams.compute.bind(streams), streams.saved.bind(streams)];
  compute(0, text);
  computed = [saved(0, 0, half), saved(0, half, text.length)];
});

const place = (from: number, to: number) => ({ from, to, tokenCount: to - from });

test.each([
  { title: "nobody else computes anything", between: () => {} },
  { title: "others compute meanwhile", between: () => (context.truncate(2, 0), compute(2, someTokens(5, 2))) },
  { title: "others save meanwhile", between: () => void saved(0, 3, 9) },
])("what is restored chunk by chunk is what was computed: $title", async ({ between }) => {
  const restoring = await context.copies.restore(1, 0, text.length);
  expect(restoring.add(computed[0]!, place(0, half))).toBe("restored");
  await restoring.arrived();
  between();
  expect(restoring.add(computed[1]!, place(half, text.length))).toBe("restored");
  await restoring.arrived();
  between();
  expect(restoring.end()).toBe(true);
  expect(context.length(1)).toBe(text.length);
  expect([saved(1, 0, half), saved(1, half, text.length)]).toEqual(computed);
  compute(1, someTokens(1, 3), text.length);
  compute(0, someTokens(1, 3), text.length);
  expect(saved(1, text.length, text.length + 1)).toEqual(saved(0, text.length, text.length + 1));
});

test("a text is restored behind what its sequence holds, and no further than it came", async () => {
  compute(1, text.subarray(0, 20));
  const restoring = await context.copies.restore(1, 20, text.length);
  expect(restoring.add(computed[0]!, { from: 20, to: half, tokenCount: half })).toBe("restored");
  await restoring.arrived();
  expect(restoring.end()).toBe(true);
  expect(context.length(1)).toBe(half);
  const tail = (payload: Uint8Array) => payload.slice(-20); // the last layer's last values
  expect(tail(saved(1, 0, half))).toEqual(tail(computed[0]!));
});

test("what is dropped leaves what the sequence held", async () => {
  compute(1, text.subarray(0, 20));
  const before = saved(1, 0, 20);
  const restoring = await context.copies.restore(1, 20, half);
  expect(restoring.add(computed[0]!, { from: 20, to: half, tokenCount: half })).toBe("restored");
  await restoring.arrived();
  restoring.drop();
  expect(context.length(1)).toBe(20);
  expect(saved(1, 0, 20)).toEqual(before);
});

test("two texts are restored one after the other, also when the first is dropped", async () => {
  const first = await context.copies.restore(1, 0, half);
  const second = context.copies.restore(2, 0, half);
  const isWaiting = await Promise.race([second.then(() => false), Promise.resolve(true)]);
  expect(isWaiting).toBe(true);
  expect(first.add(computed[0]!, place(0, half))).toBe("restored");
  first.drop();
  const restoring = await second;
  expect(restoring.add(computed[0]!, place(0, half))).toBe("restored");
  expect(restoring.end()).toBe(true);
  expect(context.length(1)).toBe(0);
  expect(saved(2, 0, half)).toEqual(computed[0]);
});

test("more than was said is refused", async () => {
  const restoring = await context.copies.restore(1, 0, half - 1);
  expect(restoring.add(computed[0]!, place(0, half))).toBe("no room");
  expect(restoring.end()).toBe(true);
  expect(context.length(1)).toBe(0);
});

test("what is shared is the other's beginning, and both go on by themselves", () => {
  context.share(0, 1, 0, 30);
  expect(context.length(1)).toBe(30);
  compute(1, someTokens(4, 9), 30);
  expect(saved(0, 0, half)).toEqual(computed[0]);
  expect(context.length(1)).toBe(34);
});

test("where copies that are due cannot be made nothing is saved or loaded, and later all is again", async () => {
  context.share(0, 1, 0, half);
  const decode = context.decode.bind(context);
  context.decode = () => ({ failed: -1 });
  expect(context.copies.save(1, 0, half, new Uint8Array(payloadBytes(layout, half)))).toBe(0);
  await expect(context.copies.restore(2, 0, half)).rejects.toThrow("no copies");
  context.decode = decode;
  expect(saved(1, 0, half)).toEqual(computed[0]);
  const restoring = await context.copies.restore(2, 0, half);
  expect(restoring.add(computed[0]!, place(0, half))).toBe("restored");
  expect(restoring.end()).toBe(true);
  expect(saved(2, 0, half)).toEqual(computed[0]);
});

test("what a sequence holds is not replaced before it has been moved: others may save and share it meanwhile", async () => {
  const copied: [from: number, to: number][] = [];
  let moved = (): void => {};
  const functions = {
    lastPosition: () => half - 1,
    copyTokens: (_: unknown, from: number, to: number) => void copied.push([from, to]),
    removeTokens: () => true,
    synchronize: () => {},
    writeState: (_: unknown, __: unknown, bytes: number) => bytes,
  } as unknown as LlamaFunctions;
  const rows = {
    put: () => {},
    move: () => {},
    wait: () => {},
    wake: () => {},
    arrived: () => new Promise<void>((resolve) => (moved = resolve)),
  } as unknown as KvRows;
  const pointers = { context: 1n as ContextPointer, memory: 1n as MemoryPointer };
  const copies = DeviceCopies.make({
    functions,
    ...pointers,
    sequences: 2,
    layout,
    rows,
    cells: new StreamCells(functions, pointers.memory),
    assemblyTokens: 100,
    runOne: () => copies.decoded(),
  })!;
  const restored = async (isMoved: boolean) => {
    const restoring = await copies.restore(1, half, text.length);
    if (isMoved) moved();
    await Promise.resolve();
    expect(restoring.add(computed[1]!, place(half, text.length))).toBe("restored");
    void restoring.arrived();
    const early = copied.splice(0);
    copies.decoded();
    expect(restoring.end()).toBe(true);
    expect(copied.splice(0)).toEqual([[2, 1]]);
    return early;
  };
  expect(await restored(false)).toEqual([]);
  expect(await restored(true)).toEqual([[2, 1]]);
});
