/**
 * Which models' KV can be reused, and the space it belongs to.
 *
 * Reuse needs a cache in which a token's KV stays where its position says and depends on the tokens before it alone. Dense
 * attention has that (RoPE of any scaling, or none). Recurrent states, sliding windows, multi-axis positions and compressed
 * attention are served without reuse until their state has a chunk layout of its own.
 */
import { doubleBits } from "../../../identity/space.ts";
import type { SpaceDescription } from "../../../identity/space.ts";
import { headSizes } from "./context.ts";
import type { Context } from "./context.ts";
import type { Model } from "../model/model.ts";
import { payloadFormat, readLayout } from "./sequence-state.ts";
import type { PayloadLayout } from "./sequence-state.ts";

export interface FamilyFacts {
  readonly architecture: string;
  readonly recurrent: boolean;
  readonly hybrid: boolean;
  /** Tokens; 0 = none. */
  readonly slidingWindow: number;
  /** llama.cpp's enum: −1 none, 0 and 2 plain, 8, 24 and 40 several axes. */
  readonly ropeType: number;
  readonly metadata: ReadonlyMap<string, string>;
}

export function familyFacts(model: Model): FamilyFacts {
  const { functions, pointer } = model;
  return {
    architecture: model.architecture,
    recurrent: functions.isRecurrent(pointer),
    hybrid: functions.isHybrid(pointer),
    slidingWindow: functions.slidingWindow(pointer),
    ropeType: functions.ropeType(pointer),
    metadata: model.metadata,
  };
}

/** Why this family's KV is not reused; undefined when it is. */
export function refusal(facts: FamilyFacts): string | undefined {
  if (facts.hybrid) return "a hybrid model keeps a recurrent state beside its KV";
  if (facts.recurrent) return "a recurrent model keeps a state, not KV";
  if (facts.slidingWindow > 0) return `its attention slides over ${facts.slidingWindow} tokens`;
  if (facts.ropeType > 2) return "its positions have several axes (M-RoPE)";
  const compressed = ["attention.key_length_mla", "attention.kv_lora_rank"];
  if (compressed.some((name) => facts.metadata.has(`${facts.architecture}.${name}`))) {
    return "its attention is compressed (MLA)";
  }
  return undefined;
}

/** Can a decode be stopped half-way? llama.cpp takes back what it wrote to KV, but not the steps of a recurrent state. */
export function canAbort(facts: FamilyFacts): boolean {
  return !facts.recurrent && !facts.hybrid;
}

/**
 * Computes one token and reads its state back: the proof that this library writes what sequence-state.ts describes. Also
 * pages the weights in.
 *
 * @returns the layout, or undefined when the state is of another kind.
 */
export function measureLayout(context: Context): { layout: PayloadLayout | undefined; decodeMs: number } {
  context.begin();
  context.add(0, 0, 0, true);
  const started = performance.now();
  const result = context.decode();
  const decodeMs = performance.now() - started;
  if (result !== "done") return { layout: undefined, decodeMs };
  const state = context.state(0);
  const layout = readLayout(state, context.streams);
  if (layout === undefined) context.clear();
  const isCopied = layout !== undefined && context.setPayloadLayout(layout, state);
  return { layout: isCopied ? layout : undefined, decodeMs };
}

export interface SpaceOptions {
  readonly model: Model;
  readonly layout: PayloadLayout;
  /** SHA-256 of the model's files. */
  readonly weights: string;
  readonly chunkTokens: number;
  /** Cells of a context: LongRoPE picks its factors by it. */
  readonly cells: number;
  /** What else the bytes depend on when they must be the same bit for bit; undefined = equal up to rounding will do. */
  readonly exactness: string | undefined;
}

/** The space of this model's KV in this engine. */
export function describeSpace(options: SpaceOptions): SpaceDescription {
  const { model, layout } = options;
  const { functions, pointer } = model;
  const sizes = headSizes(model);
  return {
    engine: "llama.cpp",
    payloadFormat,
    weights: options.weights,
    keyType: typeNames(layout.keys),
    valueType: typeNames(layout.values),
    layers: layout.keys.length,
    keyValueHeads: functions.keyValueHeads(pointer),
    keySize: sizes.key,
    valueSize: sizes.value,
    layout: `sequence-state;flash;rows=${rowLengths(layout)}${options.exactness === undefined ? "" : `;exact=${options.exactness}`}`,
    attention: "dense",
    rope: ropeParameters(model, options.cells),
    tensorParallel: 1,
    chunkTokens: options.chunkTokens,
  };
}

/** f16 is never rotated by Hadamard; other types would be, and would have to say so here. */
function typeNames(rows: PayloadLayout["keys"]): string {
  const names = [...new Set(rows.map((row) => (row.type === 1 ? "f16;hadamard=0" : `ggml-${row.type}`)))];
  return names.join(",");
}

function rowLengths(layout: PayloadLayout): string {
  return [...new Set([...layout.keys, ...layout.values].map((row) => row.bytes))].join(",");
}

function ropeParameters(model: Model, cells: number): string {
  const marker = ".rope.";
  const parts = [...model.metadata]
    .filter(([key]) => key.includes(marker))
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `${key.slice(key.indexOf(marker) + marker.length)}=${exactValue(value)}`);
  const trained = Number(model.metadata.get(`${model.architecture}.rope.scaling.original_context_length`) ?? 0);
  const long = trained > 0 && cells > trained ? 1 : 0;
  return [`type=${model.functions.ropeType(model.pointer)}`, `long=${long}`, ...parts].join(";");
}

function exactValue(value: string): string {
  return /^-?[\d.]+(e[+-]?\d+)?$/i.test(value) ? doubleBits(Number(value)) : value.replaceAll(/[\r\n]/g, " ");
}
