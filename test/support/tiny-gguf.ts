/**
 * Small GGUF files with random weights, written by the tests themselves: real models for the real library, without Python
 * or a download. Vocabulary: byte-level BPE (256 bytes, a few merges, `<|…|>` specials, fillers up to the size asked for).
 */
import { closeSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";

export type Family =
  | "llama"
  | Scaling
  | "qwen3"
  | "gemma3"
  | "mamba"
  | "qwen2vl"
  /** Half of a head is rotated. */
  | "stablelm"
  /** Every fourth layer has no positions. */
  | "smollm3";

/** Llama, with positions scaled in some way. */
type Scaling = keyof typeof scalings;

export interface TinyModel {
  readonly family: Family;
  readonly layers?: number;
  readonly embedding?: number;
  readonly heads?: number;
  readonly keyValueHeads?: number;
  readonly feedForward?: number;
  readonly vocabulary?: number;
  readonly context?: number;
  /** Other weights for the same shape. */
  readonly seed?: number;
  /** What matrices are kept in; f16 unless given. */
  readonly matrices?: Matrices;
}

export type Matrices = "f16" | "q8_0";

/** The chat template of the shipped model. */
export const chatTemplate =
  "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}";

const specials = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>", "<|pad|>"];
const merges = ["t h", "h e", "th e", "i n", "a n", "e r", "o n", "r e", "Ġ t", "Ġ a", "Ġ the", "Ġt he", "Ġ o", "Ġ s"];

/** What Llama's metadata say of scaling, for a context that was trained with so many tokens. */
const scalings = {
  yarn: (trained: number) => ({
    type: { text: "yarn" },
    factor: { f32: 4 },
    original_context_length: { u32: trained },
  }),
  linear: () => ({ type: { text: "linear" }, factor: { f32: 4 } }),
  /** As Llama 3 has it: frequencies are divided by a tensor's values. */
  llama3: () => ({}),
  longrope: (trained: number) => ({
    type: { text: "longrope" },
    attn_factor: { f32: 1.19 },
    original_context_length: { u32: trained },
  }),
} as const;

const isScaling = (family: Family): family is Scaling => family in scalings;

type Value =
  | { readonly u16: number }
  | { readonly u32: number }
  | { readonly i32: number }
  | { readonly f32: number }
  | { readonly bool: boolean }
  | { readonly text: string }
  | { readonly texts: readonly string[] }
  | { readonly i32s: readonly number[] };

interface Tensor {
  readonly name: string;
  /** Fastest dimension first, as GGUF has it. */
  readonly shape: readonly number[];
  readonly fill: "random" | number | readonly number[];
}

/** Writes `model` to `path`. */
export function writeTinyGguf(path: string, model: TinyModel): void {
  write(path, contentsOf(model), model);
}

/** Writes `model` in two parts to `folder`. @returns their paths; the first one is the model's. */
export function writeSplitGguf(folder: string, model: TinyModel): [string, string] {
  const { metadata, tensors } = contentsOf(model);
  const { seed = 1 } = model;
  const half = Math.ceil(tensors.length / 2);
  const paths = [1, 2].map((part) => join(folder, `tiny-0000${part}-of-00002.gguf`)) as [string, string];
  for (const [part, path] of paths.entries()) {
    const own = new Map<string, Value>(part === 0 ? metadata : []);
    own
      .set("split.no", { u16: part })
      .set("split.count", { u16: 2 })
      .set("split.tensors.count", { i32: tensors.length });
    const tensorsOfPart = part === 0 ? tensors.slice(0, half) : tensors.slice(half);
    write(path, { metadata: own, tensors: tensorsOfPart }, { ...model, seed: seed + part });
  }
  return paths;
}

interface Contents {
  readonly metadata: ReadonlyMap<string, Value>;
  readonly tensors: readonly Tensor[];
}

function contentsOf(model: TinyModel): Contents {
  const shape = {
    layers: 2,
    embedding: 128,
    heads: 2,
    keyValueHeads: 1,
    feedForward: 256,
    vocabulary: 512,
    context: 2048,
    ...model,
  };
  const architecture = isScaling(model.family) ? "llama" : model.family;
  const metadata = metadataOf(architecture, shape);
  return { metadata, tensors: model.family === "mamba" ? mambaTensors(shape) : attentionTensors(shape) };
}

type Shape = Required<Omit<TinyModel, "seed" | "matrices">>;

function metadataOf(architecture: string, shape: Shape): Map<string, Value> {
  const vocabulary = vocabularyOf(shape.vocabulary);
  const own = (name: string) => `${architecture}.${name}`;
  const entries = new Map<string, Value>([
    ["general.architecture", { text: architecture }],
    ["general.name", { text: `tiny ${shape.family}` }],
    [own("context_length"), { u32: shape.context }],
    [own("embedding_length"), { u32: shape.embedding }],
    [own("block_count"), { u32: shape.layers }],
    [own("vocab_size"), { u32: shape.vocabulary }],
    [own(`attention.layer_norm_${shape.family === "stablelm" ? "" : "rms_"}epsilon`), { f32: 1e-5 }],
    ["tokenizer.ggml.model", { text: "gpt2" }],
    ["tokenizer.ggml.pre", { text: "qwen2" }],
    ["tokenizer.ggml.tokens", { texts: vocabulary.tokens }],
    ["tokenizer.ggml.token_type", { i32s: vocabulary.types }],
    ["tokenizer.ggml.merges", { texts: merges }],
    ["tokenizer.ggml.eos_token_id", { u32: 4 }],
    ["tokenizer.ggml.add_bos_token", { bool: false }],
    ["tokenizer.chat_template", { text: chatTemplate }],
  ]);
  if (shape.family === "mamba") {
    entries.set(own("feed_forward_length"), { u32: 0 }).set(own("attention.head_count"), { u32: 0 });
    entries.set(own("ssm.conv_kernel"), { u32: 4 }).set(own("ssm.inner_size"), { u32: 2 * shape.embedding });
    return entries.set(own("ssm.state_size"), { u32: 16 }).set(own("ssm.time_step_rank"), { u32: 8 });
  }
  const headSize = shape.embedding / shape.heads;
  entries.set(own("feed_forward_length"), { u32: shape.feedForward });
  entries.set(own("attention.head_count"), { u32: shape.heads });
  entries.set(own("attention.head_count_kv"), { u32: shape.keyValueHeads });
  entries.set(own("attention.key_length"), { u32: headSize }).set(own("attention.value_length"), { u32: headSize });
  entries.set(own("rope.freq_base"), { f32: 10_000 }).set(own("rope.dimension_count"), { u32: rotated(shape) });
  if (isScaling(shape.family)) {
    const scaling = scalings[shape.family](shape.context / 4);
    for (const [name, value] of Object.entries<Value>(scaling)) entries.set(own(`rope.scaling.${name}`), value);
  }
  if (shape.family === "gemma3") entries.set(own("attention.sliding_window"), { u32: 64 });
  if (shape.family === "qwen2vl") entries.set(own("rope.dimension_sections"), { i32s: [16, 8, 8, 0] });
  return entries;
}

/** Elements of a head that are rotated. */
function rotated({ family, embedding, heads }: Shape): number {
  return embedding / heads / (family === "stablelm" ? 2 : 1);
}

/** Divisors of frequencies, which differ from pair to pair. */
function ropeFactors(name: string, shape: Shape, most: number): Tensor {
  const pairs = rotated(shape) / 2;
  return { name, shape: [pairs], fill: Array.from({ length: pairs }, (_, pair) => 1 + ((most - 1) * pair) / pairs) };
}

function attentionTensors(shape: Shape): Tensor[] {
  const { embedding, feedForward, family } = shape;
  const headSize = embedding / shape.heads;
  const keys = headSize * shape.keyValueHeads;
  const ones = (name: string, size: number): Tensor => ({ name, shape: [size], fill: 1 });
  const random = (name: string, from: number, to: number): Tensor => ({ name, shape: [from, to], fill: "random" });
  const tensors = [random("token_embd.weight", embedding, shape.vocabulary), ones("output_norm.weight", embedding)];
  if (family === "llama3") tensors.push(ropeFactors("rope_freqs.weight", shape, 8));
  if (family === "longrope") {
    tensors.push(
      ropeFactors("rope_factors_long.weight", shape, 16),
      ropeFactors("rope_factors_short.weight", shape, 2),
    );
  }
  if (family === "stablelm") {
    const zeros = { name: "output_norm.bias", shape: [embedding], fill: 0 } as const;
    tensors.push(zeros, random("output.weight", embedding, shape.vocabulary));
  }
  for (let layer = 0; layer < shape.layers; layer += 1) {
    const own = (name: string) => `blk.${layer}.${name}`;
    tensors.push(
      ones(own("attn_norm.weight"), embedding),
      random(own("attn_q.weight"), embedding, embedding),
      random(own("attn_k.weight"), embedding, keys),
      random(own("attn_v.weight"), embedding, keys),
      random(own("attn_output.weight"), embedding, embedding),
      ones(own("ffn_norm.weight"), embedding),
      random(own("ffn_gate.weight"), embedding, feedForward),
      random(own("ffn_up.weight"), embedding, feedForward),
      random(own("ffn_down.weight"), feedForward, embedding),
    );
    if (family === "qwen3" || family === "gemma3") {
      tensors.push(ones(own("attn_q_norm.weight"), headSize), ones(own("attn_k_norm.weight"), headSize));
    }
    if (family === "gemma3") {
      tensors.push(ones(own("post_attention_norm.weight"), embedding), ones(own("post_ffw_norm.weight"), embedding));
    }
    if (family === "stablelm") {
      for (const name of ["attn_norm.bias", "ffn_norm.bias"])
        tensors.push({ name: own(name), shape: [embedding], fill: 0 });
    }
    if (family === "qwen2vl") {
      for (const [name, size] of [
        ["attn_q.bias", embedding],
        ["attn_k.bias", keys],
        ["attn_v.bias", keys],
      ] as const) {
        tensors.push({ name: own(name), shape: [size], fill: 0 });
      }
    }
  }
  return tensors;
}

function mambaTensors(shape: Shape): Tensor[] {
  const { embedding } = shape;
  const inner = 2 * embedding;
  const tensors: Tensor[] = [
    { name: "token_embd.weight", shape: [embedding, shape.vocabulary], fill: "random" },
    { name: "output_norm.weight", shape: [embedding], fill: 1 },
  ];
  for (let layer = 0; layer < shape.layers; layer += 1) {
    const own = (name: string) => `blk.${layer}.${name}`;
    tensors.push(
      { name: own("attn_norm.weight"), shape: [embedding], fill: 1 },
      { name: own("ssm_in.weight"), shape: [embedding, 2 * inner], fill: "random" },
      { name: own("ssm_conv1d.weight"), shape: [4, inner], fill: 0.25 },
      { name: own("ssm_conv1d.bias"), shape: [inner], fill: 0 },
      { name: own("ssm_x.weight"), shape: [inner, 8 + 2 * 16], fill: "random" },
      { name: own("ssm_dt.weight"), shape: [8, inner], fill: "random" },
      { name: own("ssm_dt.bias"), shape: [inner], fill: 0 },
      { name: own("ssm_a"), shape: [16, inner], fill: -1 },
      { name: own("ssm_d"), shape: [inner], fill: 1 },
      { name: own("ssm_out.weight"), shape: [inner, embedding], fill: "random" },
    );
  }
  return tensors;
}

function vocabularyOf(size: number): { tokens: string[]; types: number[] } {
  const tokens = [...specials, ...byteCharacters(), ...new Set(merges.map((merge) => merge.replace(" ", "")))];
  while (tokens.length < size) tokens.push(`w${tokens.length}`);
  return { tokens, types: tokens.map((_, index) => (index < specials.length ? 3 : 1)) };
}

/** GPT-2's printable stand-ins for the 256 bytes. */
function byteCharacters(): string[] {
  const printable = (byte: number) => (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(printable(byte) ? byte : next++));
}

/** ggml's numbers of the types, and how many bytes so many values take. */
const typeOf = {
  f16: { number: 1, bytes: (values: number) => 2 * values },
  /** Blocks of 32 values: a scale in f16, then a byte for each. */
  q8_0: { number: 8, bytes: (values: number) => (values / 32) * 34 },
} as const;

function write(path: string, { metadata, tensors }: Contents, { seed = 1, matrices = "f16" }: TinyModel): void {
  const bytesOf = ({ shape, fill }: Tensor) => {
    const values = shape.reduce((product, size) => product * size, 1);
    return fill === "random" ? typeOf[matrices].bytes(values) : 4 * values;
  };
  const header: Buffer[] = [Buffer.from("GGUF"), u32(3), u64(tensors.length), u64(metadata.size)];
  for (const [key, value] of metadata) {
    header.push(text(key));
    for (const bytes of valueBytes(value)) header.push(bytes); // a vocabulary is too long for arguments of a call
  }
  let offset = 0;
  for (const tensor of tensors) {
    header.push(text(tensor.name), u32(tensor.shape.length), ...tensor.shape.map(u64));
    header.push(u32(tensor.fill === "random" ? typeOf[matrices].number : 0), u64(offset));
    offset += aligned(bytesOf(tensor));
  }
  const head = Buffer.concat(header);
  const file = openSync(path, "w");
  writeSync(file, head);
  writeSync(file, Buffer.alloc(aligned(head.length) - head.length));
  const random = matrices === "f16" ? halfFloats(seed) : blocksOfBytes(seed);
  for (const tensor of tensors) {
    const bytes = bytesOf(tensor);
    const data = Buffer.alloc(aligned(bytes));
    if (tensor.fill === "random") random(data.subarray(0, bytes), tensor);
    else {
      const floats = new Float32Array(data.buffer, data.byteOffset, bytes / 4);
      if (typeof tensor.fill === "number") floats.fill(tensor.fill);
      else floats.set(tensor.fill);
    }
    writeSync(file, data);
  }
  closeSync(file);
}

type Filler = (into: Buffer, tensor: Tensor) => void;

/** Fills with f16 numbers whose spread keeps activations near 1. */
function halfFloats(seed: number): Filler {
  const next = randomWords(seed);
  return (bytes, tensor) => {
    const into = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);
    // Uniform in ±2^exponent·[1, 2): the exponent follows the row length, the mantissa and sign are random.
    const exponent = 15 - Math.round(Math.log2(tensor.shape[0]!) / 2);
    for (let index = 0; index < into.length; index += 1) {
      const state = next();
      const smaller = (state >>> 27) & 3;
      into[index] = ((state >>> 16) & 0x8000) | ((exponent - smaller) << 10) | ((state >>> 8) & 0x3ff);
    }
  };
}

/** The same of q8_0: bytes from -127 to 127 under one scale, a power of two. */
function blocksOfBytes(seed: number): Filler {
  const next = randomWords(seed);
  return (into, tensor) => {
    const exponent = 15 - Math.round(Math.log2(73 * Math.sqrt(tensor.shape[0]!))); // 73: the root mean square of such bytes
    for (let block = 0; block < into.length; block += 34) {
      into.writeUInt16LE(exponent << 10, block);
      for (let index = 2; index < 34; index += 1) into[block + index] = ((next() >>> 16) % 255) - 127;
    }
  };
}

function randomWords(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0);
}

function valueBytes(value: Value): Buffer[] {
  if ("u16" in value) return [u32(2), u16(value.u16)];
  if ("i32" in value) return [u32(5), u32(value.i32)];
  if ("u32" in value) return [u32(4), u32(value.u32)];
  if ("f32" in value) return [u32(6), f32(value.f32)];
  if ("bool" in value) return [u32(7), Buffer.from([value.bool ? 1 : 0])];
  if ("text" in value) return [u32(8), text(value.text)];
  if ("texts" in value) return [u32(9), u32(8), u64(value.texts.length), ...value.texts.map(text)];
  return [u32(9), u32(5), u64(value.i32s.length), ...value.i32s.map(u32)];
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / 32) * 32;
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function f32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.length), bytes]);
}
