/**
 * Notes beside the slots of one extent: what a slot holds, for the process that adopts the pool after a crash.
 *
 * A note is written in place and stands for itself: a torn or flipped one loses its own chunk and no other. Nothing is
 * appended, replayed or compacted, and nothing is synced: the kernel keeps the pages when a process dies, and when the
 * machine goes the pool goes as well.
 *
 *     offset  bytes
 *          0      4  state: 0 free, 1 reserved, 2 kept            all numbers little-endian
 *          4      4  bytes of the note
 *          8      8  xxh3-64 of all from 32 on; written last, and cleared first when the slot is freed
 *         16     16  checksum of the payload, 0 while it is not known
 *         32      8  offset of the slot in the pool
 *         40      4  payload bytes
 *         44      4  slot bytes asked for
 *         48      2  part
 *         50      2  parts of a chunk
 *         52      4  position of the first token
 *         56      4  token count
 *         60      4  zero
 *         64    4·32 space, root, key, parent's key or the root's
 *        192    4·T  tokens
 */
import { xxh3 } from "@node-rs/xxhash";
import { type ChunkKey, type RootKey } from "../../identity/keys.ts";
import { tokenBytes, tokensFromBytes } from "../../identity/tokens.ts";
import type { SlotNote } from "../../cache/pool/slot-pool.ts";
import type { SpaceId } from "../../identity/space.ts";

const fixedBytes = 192;
const checkedFrom = 32;
const digestsAt = 64;
const alignBytes = 64;

const freeState = 0;
const reservedState = 1;
const keptState = 2;

/** Bytes from one note to the next when a note may have so many tokens. */
export function noteBytes(tokens: number): number {
  return Math.ceil((fixedBytes + 4 * tokens) / alignBytes) * alignBytes;
}

export class SlotNotes {
  /** Bytes from one note to the next. */
  readonly stride: number;
  readonly #bytes: Buffer;

  /** `bytes`: all notes of the extent. */
  constructor(bytes: Buffer, stride: number) {
    this.#bytes = bytes;
    this.stride = stride;
  }

  clear(): void {
    this.#bytes.fill(0);
  }

  reserve(slot: number): void {
    this.#bytes.writeUInt32LE(reservedState, slot * this.stride);
  }

  /** Before the slot is given to anybody else: the old note must not be taken for the new owner's. */
  free(slot: number): void {
    const at = slot * this.stride;
    this.#bytes.fill(0, at + 8, at + checkedFrom);
    this.#bytes.writeUInt32LE(freeState, at);
  }

  /** Without effect where the note has no room: its chunk will not outlive the process. */
  keep(slot: number, offset: number, note: SlotNote): void {
    const length = fixedBytes + 4 * note.tokens.length;
    if (length > this.stride) return;
    const at = slot * this.stride;
    const bytes = this.#bytes.subarray(at, at + length);
    bytes.writeUInt32LE(length, 4);
    bytes.writeUInt32LE(offset % 2 ** 32, 32);
    bytes.writeUInt32LE(Math.floor(offset / 2 ** 32), 36);
    bytes.writeUInt32LE(note.payloadBytes, 40);
    bytes.writeUInt32LE(note.slotBytes, 44);
    bytes.writeUInt16LE(note.part, 48);
    bytes.writeUInt16LE(note.parts, 50);
    bytes.writeUInt32LE(note.firstToken, 52);
    bytes.writeUInt32LE(note.tokens.length, 56);
    bytes.writeUInt32LE(0, 60);
    bytes.write(note.space, digestsAt, 32, "hex");
    bytes.write(note.root, digestsAt + 32, 32, "hex");
    bytes.write(note.key, digestsAt + 64, 32, "hex");
    bytes.write(note.parent, digestsAt + 96, 32, "hex");
    bytes.set(tokenBytes(note.tokens), fixedBytes);
    bytes.writeUInt32LE(keptState, 0);
    bytes.writeBigUInt64LE(xxh3.xxh64(bytes.subarray(checkedFrom)), 8);
  }

  seal(slot: number, checksum: bigint): void {
    const at = slot * this.stride;
    if (this.#bytes.readUInt32LE(at) !== keptState) return;
    this.#bytes.writeBigUInt64LE(checksum & 0xffff_ffff_ffff_ffffn, at + 16);
    this.#bytes.writeBigUInt64LE(checksum >> 64n, at + 24);
  }

  /** The checksum of the payload; undefined while it is not known. */
  sealOf(slot: number): bigint | undefined {
    const at = slot * this.stride;
    const checksum = this.#bytes.readBigUInt64LE(at + 16) | (this.#bytes.readBigUInt64LE(at + 24) << 64n);
    return checksum === 0n ? undefined : checksum;
  }

  isFree(slot: number): boolean {
    return this.#bytes.readUInt32LE(slot * this.stride) === freeState;
  }

  /** What the slot at `offset` holds; undefined when nothing was kept there, or its note does not match its checksum. */
  read(slot: number, offset: number): SlotNote | undefined {
    const at = slot * this.stride;
    const length = this.#bytes.readUInt32LE(at + 4);
    if (this.#bytes.readUInt32LE(at) !== keptState || length < fixedBytes || length > this.stride) return undefined;
    const bytes = this.#bytes.subarray(at, at + length);
    if (bytes.readBigUInt64LE(8) !== xxh3.xxh64(bytes.subarray(checkedFrom))) return undefined;
    const tokens = bytes.readUInt32LE(56);
    if (length !== fixedBytes + 4 * tokens || Number(bytes.readBigUInt64LE(32)) !== offset) return undefined;
    const digest = (i: number) => bytes.toString("hex", digestsAt + 32 * i, digestsAt + 32 * (i + 1));
    return {
      payloadBytes: bytes.readUInt32LE(40),
      slotBytes: bytes.readUInt32LE(44),
      part: bytes.readUInt16LE(48),
      parts: bytes.readUInt16LE(50),
      firstToken: bytes.readUInt32LE(52),
      space: digest(0) as SpaceId,
      root: digest(1) as RootKey,
      key: digest(2) as ChunkKey,
      parent: digest(3) as ChunkKey | RootKey,
      tokens: tokensFromBytes(bytes.subarray(fixedBytes)),
    };
  }
}
