/**
 * Stored keys as numbers, and how near each other two stored vectors must be when only rounding may tell them apart.
 *
 *     q8_0   blocks of 32 elements: f16 scale │ 32 × i8
 */
import { rotatableTypes } from "../../../ffi/ggml-rope.ts";

/** The elements of rows of a type that can be rotated, as many as `bytes` has. */
export function floatsOf(type: number, bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const each = (width: number, read: (at: number) => number) =>
    Float32Array.from({ length: bytes.length / width }, (_, i) => read(width * i));
  if (type === rotatableTypes.f32) return each(4, (at) => view.getFloat32(at, true));
  if (type === rotatableTypes.f16) return each(2, (at) => halfFloat(view.getUint16(at, true)));
  if (type === rotatableTypes.bf16) return each(2, (at) => upperHalf(view.getUint16(at, true)));
  return Float32Array.from({ length: (bytes.length / 34) * 32 }, (_, i) => {
    const block = 34 * Math.floor(i / 32);
    return halfFloat(view.getUint16(block, true)) * view.getInt8(block + 2 + (i % 32));
  });
}

/**
 * How far two rows of heads are from being equal, as a share of what rounding explains: above 1 there is something else.
 *
 * A pair of elements is rotated, so that each has a part of the other's error. Blocks of q8_0 are rounded as their largest element is.
 */
export function distance(
  { type, dimensions, mode, headSize }: RotatedHeads,
  actual: Float32Array,
  expected: Float32Array,
): number {
  const share = roundingShares.get(type) ?? 0;
  let worst = 0;
  for (let head = 0; head < expected.length; head += headSize) {
    const largest = type === rotatableTypes.q8_0 ? largestOf(expected.subarray(head, head + headSize)) : 0;
    for (let i = 0; i < headSize; i += 1) {
      const own = Math.abs(expected[head + i]!);
      const other = Math.abs(expected[head + partnerOf(i, dimensions, mode)]!); // in the same head
      const allowed = share * Math.max(own, other, largest) + smallest;
      const off = Math.abs(actual[head + i]! - expected[head + i]!) / allowed;
      worst = Number.isNaN(off) ? Infinity : Math.max(worst, off);
    }
  }
  return worst;
}

export interface RotatedHeads {
  readonly type: number;
  readonly dimensions: number;
  readonly mode: number;
  readonly headSize: number;
}

/**
 * Three roundings: of what was stored, of what was computed anew, and of what came out of the first. For f32 the angles count, which are
 * f32 too.
 */
const roundingShares: ReadonlyMap<number, number> = new Map([
  [rotatableTypes.f32, 1e-3],
  [rotatableTypes.f16, 2.5e-3],
  [rotatableTypes.bf16, 2e-2],
  [rotatableTypes.q8_0, 2e-2],
]);
/** Half floats below are not precise. */
const smallest = 2 ** -23;

/** With which element of a head another one is rotated; itself where it is not. */
function partnerOf(index: number, dimensions: number, mode: number): number {
  if (index >= dimensions) return index;
  if (mode === 0) return index ^ 1;
  return index < dimensions / 2 ? index + dimensions / 2 : index - dimensions / 2;
}

function largestOf(values: Float32Array): number {
  return values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
}

function halfFloat(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits >> 15 === 0 ? 1 : -1;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}

const word = new DataView(new ArrayBuffer(4));

function upperHalf(bits: number): number {
  word.setUint32(0, bits * 65_536);
  return word.getFloat32(0);
}
