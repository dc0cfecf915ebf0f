/** Memory that O_DIRECT takes: page-aligned, whole pages. Slots of the pool are; other buffers mostly are not. */
import { assert } from "../../errors.ts";
import { addressOf } from "../../ffi/posix.ts";
import { padded, pageBytes } from "../../pages.ts";

/** A buffer of whole pages, its content whatever it was. */
export function alignedBuffer(bytes: number): Buffer {
  const size = padded(bytes);
  const room = Buffer.allocUnsafeSlow(size + pageBytes);
  const past = Number(addressOf(room) % BigInt(pageBytes));
  const from = past === 0 ? 0 : pageBytes - past;
  return room.subarray(from, from + size);
}

export function isAligned(bytes: Uint8Array): boolean {
  return bytes.length % pageBytes === 0 && Number(addressOf(bytes) % BigInt(pageBytes)) === 0;
}

/** The payload padded to whole pages: in place where there is room behind it. */
export function paddedWithZeros(payload: Uint8Array, bytes: number): Uint8Array {
  if (payload.length === padded(bytes)) return payload.fill(0, bytes);
  assert(payload.length === bytes, "a view is as long as its payload, or padded to whole pages");
  const copy = alignedBuffer(bytes).fill(0, bytes);
  copy.set(payload);
  return copy;
}
