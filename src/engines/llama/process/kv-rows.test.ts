/** Rows out of and into a real context's tensors: by ggml, and by a stand-in for NVIDIA's driver whose device is this process's memory. */
import { execFileSync } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { CudaMemory } from "../../../ffi/cuda-memory.ts";
import type { ContextPointer } from "../../../ffi/llama.ts";
import { hasCompiler } from "../../../../test/support/gpu-package.ts";
import { library, loadTiny } from "../../../../test/support/scheduler-rig.ts";
import { copyRows } from "../../../../test/support/state-rows.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import { rowsTogether, Context } from "./context.ts";
import { CudaRows, StreamTensors, TensorRows } from "./kv-rows.ts";
import type { KvRows } from "./kv-rows.ts";
import { readLayout } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";
import { StepThreads } from "./thread-choice.ts";

const streams = 3;
const held = 40;

/** Copies when it is waited for and not before, and counts what is registered. */
const driver = `
#include <string.h>
#include <stddef.h>
typedef struct { size_t sx, sy; unsigned sk; const char *sh; char *sd; void *sa; size_t sp;
  size_t dx, dy; unsigned dk; char *dh; char *dd; void *da; size_t dp, width, height; } plan;
static plan due[4096]; static int count, asked;
int cuInit(unsigned f) { return 0; }
int cuDeviceGet(int *d, int i) { *d = i; return 0; }
int cuDevicePrimaryCtxRetain(void **c, int d) { *c = &count; return 0; }
int cuCtxSetCurrent(void *c) { return 0; }
int cuStreamCreate(void **s, unsigned f) { *s = &due; return 0; }
int cuMemHostRegister_v2(void *p, size_t n, unsigned f) { return 0; }
int cuMemHostUnregister(void *p) { return 0; }
int cuEventCreate(void **e, unsigned f) { *e = &asked; return 0; }
int cuEventRecord(void *e, void *s) { return 0; }
int cuEventDestroy_v2(void *e) { return 0; }
int cuMemcpy2DAsync_v2(const plan *p, void *s) {
  if (p->sp < p->width || p->dp < p->width || count == 4096) return 1;
  due[count++] = *p; return 0; }
int cuStreamSynchronize(void *s) {
  for (int i = 0; i < count; i++) for (size_t row = 0; row < due[i].height; row++)
    memcpy((due[i].dk == 1 ? due[i].dh : due[i].dd) + row * due[i].dp,
           (due[i].sk == 1 ? due[i].sh : due[i].sd) + row * due[i].sp, due[i].width);
  count = 0; return 0; }
int cuEventQuery(void *e) { if (++asked % 3) return 600; return cuStreamSynchronize(0); }
`;

let context: Context;
let layout: PayloadLayout;
let rows: Partial<Record<"ggml" | "CUDA", KvRows>>;

beforeAll(() => {
  const model = loadTiny({ family: "llama" });
  const { functions } = library;
  let pointer: ContextPointer | null = null;
  const createContext: typeof functions.createContext = (model, params) =>
    (pointer = functions.createContext(model, params));
  const listening = { ...library, functions: { ...functions, createContext } };
  const shape = { library: listening, model, threadPool: undefined, abortFlag: undefined, layout: "streams" } as const;
  const threads = new StepThreads(1, { deterministic: true });
  context = Context.create({ ...shape, cells: streams * 512, sequences: streams, threads });
  for (let sequence = 0; sequence < streams; sequence += 1) compute(sequence, someTokens(held, sequence));
  layout = readLayout(context.state(0), streams)!; // of a plain model
  const largest = { rows: rowsTogether, sequences: streams };
  const found = library.kvTensors!.find(pointer!, layout.keys.length, largest)!; // CI's libraries have them
  const tensors = StreamTensors.of(found, layout, streams)!; // likewise
  rows = { ggml: new TensorRows(library.kvTensors!, tensors) };
  if (!hasCompiler) return;
  const file = join(mkdtempSync(join(tmpdir(), "reprise-driver-")), "libcuda.so.1");
  execFileSync("cc", ["-shared", "-fPIC", "-x", "c", "-o", file, "-"], { input: driver });
  rows.CUDA = new CudaRows(CudaMemory.open(file)!, tensors);
});

function compute(sequence: number, tokens: Uint32Array): void {
  context.begin();
  for (const [position, token] of tokens.entries()) context.add(sequence, position, token, position === held - 1);
  expect(context.decode()).toBe("done");
}

function empty(cells: number, first: number): StateCells {
  const shape = { layout, cells, streams: 1, sequence: 0 };
  return StateCells.make(new Uint8Array(StateCells.bytesOf(shape)), shape, first);
}

function bytesOf({ memory }: StateCells): Uint8Array {
  return new Uint8Array(memory.buffer, memory.byteOffset, memory.byteLength);
}

/** Rows of a sequence as llama.cpp writes them. */
function written(sequence: number, from: number, to: number): StateCells {
  const payload = empty(to - from, from);
  const shape = { layout, cells: held, streams, sequence };
  expect(copyRows(payload, StateCells.of(context.state(sequence), shape), from, to)).toBe(true);
  return payload;
}

describe.each(hasCompiler ? (["ggml", "CUDA"] as const) : (["ggml"] as const))("by %s", (way) => {
  const by = () => rows[way]!; // made above

  test.each([0, 1, 2])("what is read of sequence %i is what llama.cpp writes of it", (sequence) => {
    for (const [from, to] of [
      [0, held],
      [7, 23],
      [39, 40],
    ] as const) {
      const payload = empty(to - from, from);
      by().get(payload, { cell: 0, position: from, count: to - from }, sequence);
      by().wait();
      expect(Buffer.compare(bytesOf(payload), bytesOf(written(sequence, from, to)))).toBe(0);
    }
  });

  test("what is put into a stream is what that sequence holds then; the others keep theirs", async () => {
    const [first, last] = [written(0, 0, held), written(2, 0, held)];
    by().put(first, { cell: 5, position: 5, count: 20 }, 1);
    await by().arrived();
    expect(bytesOf(written(1, 5, 25))).toEqual(bytesOf(written(0, 5, 25)));
    expect(bytesOf(written(1, 25, 26))).not.toEqual(bytesOf(written(0, 25, 26)));
    expect(bytesOf(written(0, 0, held))).toEqual(bytesOf(first));
    by().move(2, 1, 30);
    by().wait();
    expect(bytesOf(written(1, 0, 30))).toEqual(bytesOf(written(2, 0, 30)));
    expect(bytesOf(written(2, 0, held))).toEqual(bytesOf(last));
    context.truncate(1, 0);
    compute(1, someTokens(held, 1));
  });
});

test("tensors of another shape are not taken for those of a layout", () => {
  const tensor = (bytes: number) => ({ pointer: 1n, address: 1n, bytes });
  const one = { keys: [{ type: 1, bytes: 8 }], values: [{ type: 1, bytes: 8 }] };
  const of = (keys: number, values: number) =>
    StreamTensors.of({ keys: [tensor(keys)], values: [tensor(values)] }, one, 2);
  expect(of(1600, 1600)?.cells).toBe(100);
  expect(of(1600, 800)).toBeUndefined();
  expect(of(1608, 1608)).toBeUndefined();
  expect(StreamTensors.of({ keys: [], values: [] }, one, 2)).toBeUndefined();
});
