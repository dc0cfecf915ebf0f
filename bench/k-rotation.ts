/**
 * What does it cost to rotate stored keys to other positions? For the shapes of layers that people run, on the engine's own kernel.
 *
 *     npm run bench -- k-rotation [--tokens 256] [--layers 16] [--threads 1,2] [--type f16] [--rounds 20]
 *
 * A run of `--tokens` tokens, whose keys lie as in a payload, goes into memory beside it. Milliseconds of 1,000 tokens in one layer, and
 * gigabytes of keys a second; medians. `copy` is what copying the same bytes takes.
 */
import { parseArgs } from "node:util";
import { median } from "../src/bench/statistics.ts";
import { KeyRotation } from "../src/engines/llama/process/key-rotation.ts";
import { StateCells } from "../src/engines/llama/process/state-cells.ts";
import { bytesOfHead, rotatableTypes } from "../src/ffi/ggml-rope.ts";
import { library } from "../test/support/scheduler-rig.ts";
import { gigabytesPerSecond, printLine, rounded, timesOf } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    tokens: { type: "string", default: "256" },
    layers: { type: "string", default: "16" },
    threads: { type: "string", default: "1,2" },
    type: { type: "string", default: "f16" },
    rounds: { type: "string", default: "20" },
  },
});
const [tokens, layers, rounds] = [values.tokens, values.layers, values.rounds].map(Number) as [number, number, number];
const type = (rotatableTypes as Readonly<Record<string, number>>)[values.type];
if (type === undefined) throw new Error(`--type is one of ${Object.keys(rotatableTypes).join(", ")}`);

const shapes = {
  "Llama 3 8B: 8 × 128, neighbours": { headSize: 128, heads: 8, mode: 0, dimensions: 128 },
  "Qwen3 8B: 8 × 128, halves": { headSize: 128, heads: 8, mode: 2, dimensions: 128 },
  "Qwen2.5 0.5B: 2 × 64, halves": { headSize: 64, heads: 2, mode: 2, dimensions: 64 },
  "StableLM 3B: 32 × 80, a quarter": { headSize: 80, heads: 32, mode: 2, dimensions: 20 },
} as const;
const rope = { originalContext: 8192, base: 1e6, scale: 1, extension: 0, magnitude: 1, betaFast: 32, betaSlow: 1 };

const most = Math.max(...values.threads.split(",").map(Number));
const rotateRows = library.createRotateRows(most > 1 ? library.createThreadPool(most) : undefined);
if (rotateRows === undefined) throw new Error("these libraries cannot rotate keys");

const figures: Record<string, object> = {};
for (const [name, { headSize, heads, mode, dimensions }] of Object.entries(shapes)) {
  const headBytes = bytesOfHead(type, headSize);
  if (headBytes === undefined) continue; // blocks that a head is no multiple of
  const row = { type, bytes: headBytes * heads };
  const layout = { keys: Array.from({ length: layers }, () => row), values: [] };
  const by = layout.keys.map(() => ({ headSize, heads, rope: { ...rope, mode, dimensions, factors: undefined } }));
  const rotation = new KeyRotation({ layout, by, rotateRows });
  const shape = { layout, cells: tokens, streams: 1, sequence: 0 };
  const [source, target] = [1, 2].map(() => StateCells.make(new Uint8Array(StateCells.bytesOf(shape)), shape, 0)) as [
    StateCells,
    StateCells,
  ];
  const bytesOfSource = source.view(0, source.memory.byteLength);
  bytesOfSource.forEach((_, i) => i % 2 === 1 && i >= source.rows[0]!.at && (bytesOfSource[i] = 0x38 + (i % 7))); // no zeros
  const run = { cell: 0, position: 0, count: tokens };
  const bytes = layers * tokens * row.bytes;
  const ms = (times: readonly number[]) => rounded((1000 * median(times)) / tokens / layers);
  const copies = await timesOf(rounds, () => rotation.rotateKeys({ source, run, target, cell: 0 }, 0, 1));
  const own: Record<string, object> = { copy: { ms: ms(copies), gbPerSecond: gigabytesPerSecond(bytes, copies) } };
  for (const threads of values.threads.split(",").map(Number)) {
    const times = await timesOf(rounds, () => rotation.rotateKeys({ source, run, target, cell: 0 }, 1000, threads));
    own[`${threads} threads`] = { ms: ms(times), gbPerSecond: gigabytesPerSecond(bytes, times) };
  }
  figures[name] = own;
}
printLine("k-rotation", figures, { tokens, layers, type: values.type, rounds });
