/**
 * A rotation of keys that was tried on the model itself, before any stored text is moved by it.
 *
 * The first layer's keys depend on a token and its position alone. So a few tokens are computed at the start of a sequence and again far
 * behind it: the first, rotated, must be the second up to rounding. What a graph says and what a kernel does meet there.
 */
import type { Pointer } from "../../../ffi/posix.ts";
import type { Library } from "../model/library.ts";
import type { Model } from "../model/model.ts";
import type { Context } from "./context.ts";
import { familyFacts } from "./family.ts";
import { distance, floatsOf } from "./key-floats.ts";
import { KeyRotation } from "./key-rotation.ts";
import { type KeyMove, movable } from "./movable.ts";
import type { PayloadLayout } from "./sequence-state.ts";
import { StateCells } from "./state-cells.ts";

export interface RotationOptions {
  readonly library: Library;
  readonly model: Model;
  /** Holds nothing, and knows its {@link PayloadLayout}. It holds nothing afterwards. */
  readonly context: Context;
  /** Undefined where payloads are of a kind that is not known. */
  readonly layout: PayloadLayout | undefined;
  /** That steps run on, too. */
  readonly threadPool: Pointer | undefined;
}

export type ProvenRotation = { readonly rotation: KeyRotation } | { readonly refused: string };

const tokens = 8;
/** Far enough for slow frequencies to show, and not so far that angles become imprecise. */
const farthest = 1000;

/** Finds how this model's keys are rotated, and tries it. @returns why they are not moved, as a part of a sentence, where they are not */
export function provenRotation({ library, model, context, layout, threadPool }: RotationOptions): ProvenRotation {
  const keys = layout === undefined ? undefined : context.layerKeys(layout.keys.length);
  const found = movable({ family: familyFacts(model), layout, keys });
  if ("refused" in found) return found;
  const rotateRows = library.createRotateRows(threadPool);
  if (rotateRows === undefined || layout === undefined) return { refused: "these libraries cannot rotate its keys" };
  const rotation = new KeyRotation({ layout, by: found.by, rotateRows });
  const refused = fault({ model, context, layout }, rotation, found.by[0]);
  return refused === undefined ? { rotation } : { refused };
}

interface Tried {
  readonly model: Model;
  readonly context: Context;
  readonly layout: PayloadLayout;
}

function fault({ model, context, layout }: Tried, rotation: KeyRotation, move: KeyMove): string | undefined {
  const far = Math.min(farthest, Math.floor(model.trainedContext / 2));
  const shape = { layout, cells: tokens, streams: context.streams, sequence: 0 };
  const states = [0, far].map((first) => computed({ model, context }, first));
  const [near, native] = states.map((state) =>
    state?.length === StateCells.bytesOf(shape) ? StateCells.of(state, shape) : undefined,
  );
  if (near === undefined || native === undefined) return "a few tokens could not be computed to try it";
  const target = StateCells.make(new Uint8Array(native.memory.byteLength), shape, far);
  try {
    rotation.rotateKeys({ source: near, run: { cell: 0, position: 0, count: tokens }, target, cell: 0 }, far, 1);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const { at, bytes, type } = native.rows[0]!; // a model has a layer
  const [actual, expected] = [target, native].map((state) => floatsOf(type, state.view(at, tokens * bytes))) as [
    Float32Array,
    Float32Array,
  ];
  const whole = { headSize: actual.length, rope: { dimensions: 0, mode: 0 } };
  const { headSize, rope } = move ?? whole;
  const off = distance({ type, headSize, dimensions: rope.dimensions, mode: rope.mode }, actual, expected);
  if (off <= 1) return undefined;
  return `its keys, rotated, are not those that it computes at another position (off by ${off.toPrecision(2)} times what rounding explains)`;
}

/** The state after some tokens from position `first` on, which is forgotten again; undefined when they could not be computed. */
function computed({ model, context }: Omit<Tried, "layout">, first: number): Uint8Array | undefined {
  context.begin();
  for (let i = 0; i < tokens; i += 1)
    context.add(0, first + i, (i * 7919 + 11) % model.vocabularySize, i === tokens - 1);
  const state = context.decode() === "done" ? context.state(0) : undefined;
  context.truncate(0, 0);
  return state;
}
