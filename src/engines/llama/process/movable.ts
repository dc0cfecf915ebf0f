/**
 * Which models' KV can be moved to other positions of a prompt.
 *
 * A value says nothing of where its token stands. A key is rotated by its position, last of all: rotated by the difference, it stands
 * somewhere else. That is so of dense attention with RoPE of any scaling. Whatever cannot be moved is told apart by name, so that
 * nobody has to guess why a text is computed again.
 */
import { bytesOfHead, rotatableTypes } from "../../../ffi/ggml-rope.ts";
import type { Rope } from "../../../ffi/ggml-rope.ts";
import type { LayerKeys } from "../../../ffi/key-ropes.ts";
import { type FamilyFacts, refusal } from "./family.ts";
import type { PayloadLayout } from "./sequence-state.ts";

export interface MoveFacts {
  readonly family: FamilyFacts;
  /** Undefined where payloads are of a kind that is not known. */
  readonly layout: PayloadLayout | undefined;
  /** How the context's graph makes each layer's keys; undefined where that could not be read. */
  readonly keys: readonly LayerKeys[] | undefined;
}

/** How a layer's keys are moved. Undefined: they have no position, and stay what they are. */
export type KeyMove = { readonly headSize: number; readonly heads: number; readonly rope: Rope } | undefined;

type RotatedKeys = Extract<LayerKeys, { are: "rotated" }>;

export type Movable = { readonly by: readonly KeyMove[] } | { readonly refused: string };

/** How the keys of each layer are moved, or why they cannot be, as a part of a sentence. */
export function movable({ family, layout, keys }: MoveFacts): Movable {
  const notReused = refusal(family);
  if (notReused !== undefined) return { refused: notReused };
  if (layout === undefined) return { refused: "its KV is stored in a way that is not known here" };
  if (keys === undefined || keys.length !== layout.keys.length)
    return { refused: "these libraries do not say how its keys are rotated" };
  const moves: KeyMove[] = [];
  for (const [layer, each] of keys.entries()) {
    const { type, bytes } = layout.keys[layer]!; // as many
    if (each.are === "something else") return { refused: changedKeys(type, each.operation) };
    const fault = each.are === "rotated" ? rotationFault(each, { type, bytes }) : undefined;
    if (fault !== undefined) return { refused: fault };
    moves.push(each.are === "rotated" ? moveOf(each) : undefined);
  }
  if (moves.every((move) => move === undefined)) return { refused: "its keys are not rotated by position (no RoPE)" };
  return { by: moves };
}

/**
 * YaRN multiplies keys besides rotating them (by 1 + 0.1 ln(1 / scale), Peng et al. 2023, in ggml's kernel), and a model may ask for more.
 * Stored keys have that already.
 */
function moveOf({ headSize, heads, rope }: RotatedKeys): KeyMove {
  const own = rope.extension === 0 ? 1 : 1 + 0.1 * Math.log(1 / rope.scale);
  return { headSize, heads, rope: { ...rope, magnitude: 1 / own } };
}

function rotationFault(
  { headSize, heads, rope }: RotatedKeys,
  { type, bytes }: PayloadLayout["keys"][number],
): string | undefined {
  if (rope.mode !== 0 && rope.mode !== 2) return "its positions have several axes (M-RoPE)";
  const headBytes = bytesOfHead(type, headSize);
  if (headBytes === undefined) return `keys of ggml's type ${type} cannot be rotated`;
  if (headBytes * heads !== bytes) return "its keys are not rotated as they are stored";
  return undefined;
}

function changedKeys(type: number, operation: string): string {
  const isQuantized = type !== rotatableTypes.f32 && type !== rotatableTypes.f16 && type !== rotatableTypes.bf16;
  // llama.cpp spreads outliers over a head before it rounds. That and a rotation by position do not commute.
  if (isQuantized && operation === "MUL_MAT") return "its quantised keys are stored Hadamard-rotated";
  return `its keys are changed after they were rotated (${operation})`;
}
