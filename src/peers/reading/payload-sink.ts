/** Where a payload goes that is being received: into its memory piece by piece, each hashed while it is in the processor's caches. */
import { leafBytes, leavesOf, rootOf } from "../../tiers/payload-checksum.ts";

const pageBytes = 4096;
/** Read at a time: a whole number of leaves. */
const pieceBytes = 2 * leafBytes;

export class PayloadSink {
  readonly #view: Uint8Array;
  readonly #length: number;
  readonly #leaves: bigint[] = [];
  #at = 0;
  #hashed = 0;

  /** @param view as long as the payload, or padded to whole pages ({@link PayloadSink.fits}) */
  constructor(view: Uint8Array, length: number) {
    this.#view = view;
    this.#length = length;
  }

  static fits(view: Uint8Array, length: number): boolean {
    return view.length === length || view.length === Math.ceil(length / pageBytes) * pageBytes;
  }

  get missingBytes(): number {
    return this.#length - this.#at;
  }

  get isFull(): boolean {
    return this.#at === this.#length;
  }

  /** Memory for what comes next, up to the end of a piece; undefined when it is full. */
  room(): Uint8Array | undefined {
    if (this.isFull) return undefined;
    const end = Math.min(this.#length, (Math.floor(this.#at / pieceBytes) + 1) * pieceBytes);
    return this.#view.subarray(this.#at, end);
  }

  /** So many bytes have come into {@link room}. */
  took(bytes: number): void {
    this.#at += bytes;
    for (; this.#hashed + leafBytes <= this.#at; this.#hashed += leafBytes)
      this.#leaves.push(...leavesOf(this.#view.subarray(this.#hashed, this.#hashed + leafBytes)));
  }

  /** Takes bytes that came elsewhere, no more than {@link missingBytes}. */
  put(bytes: Uint8Array): void {
    this.#view.set(bytes, this.#at);
    this.took(bytes.length);
  }

  /** Of the payload, which has come whole (payload-checksum.ts). What pads it is zeros from now on. */
  checksum(): bigint {
    this.#view.fill(0, this.#length);
    const rest = this.#view.subarray(this.#hashed, this.#length);
    const padded = Buffer.alloc(Math.ceil(rest.length / pageBytes) * pageBytes);
    padded.set(rest);
    return rootOf([...this.#leaves, ...leavesOf(padded)]);
  }
}
