/** Where a payload goes that is being received: into its memory piece by piece, each hashed while it is in the processor's caches. */
import { leafBytes, leavesOf, leavesToEnd, rootOf } from "../../tiers/payload-checksum.ts";
import { padded } from "../../pages.ts";

/** Read at a time: a whole number of leaves. */
const pieceBytes = 2 * leafBytes;

/** Of a payload that is being received, as it is or packed (packed-sink.ts). */
export interface Sink {
  /** The payload has come, to the last byte. */
  readonly isFull: boolean;
  /** Of what is on its way now. */
  readonly missingBytes: number;
  /** That have come. */
  readonly storedBytes: number;
  /** Memory for what comes next; undefined when nothing is missing. */
  room(): Uint8Array | undefined;
  /** So many bytes have come into {@link room}. */
  took(bytes: number): void;
  /** Takes bytes that came elsewhere, no more than {@link missingBytes}. */
  put(bytes: Uint8Array): void;
  /**
   * Of the payload, which has come whole (payload-checksum.ts); undefined: it was not packed like that. What pads it is zeros from
   * now on.
   */
  checksum(): Promise<bigint | undefined>;
  /** Resolves when nobody touches the memory any more; nothing more has been put into it by then. */
  ended(): Promise<void>;
}

export class PayloadSink implements Sink {
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
    return view.length === length || view.length === padded(length);
  }

  get missingBytes(): number {
    return this.#length - this.#at;
  }

  get storedBytes(): number {
    return this.#at;
  }

  get isFull(): boolean {
    return this.#at === this.#length;
  }

  /** Up to the end of a piece. */
  room(): Uint8Array | undefined {
    if (this.isFull) return undefined;
    const end = Math.min(this.#length, (Math.floor(this.#at / pieceBytes) + 1) * pieceBytes);
    return this.#view.subarray(this.#at, end);
  }

  took(bytes: number): void {
    this.#at += bytes;
    for (; this.#hashed + leafBytes <= this.#at; this.#hashed += leafBytes)
      this.#leaves.push(...leavesOf(this.#view.subarray(this.#hashed, this.#hashed + leafBytes)));
  }

  put(bytes: Uint8Array): void {
    this.#view.set(bytes, this.#at);
    this.took(bytes.length);
  }

  checksum(): Promise<bigint> {
    this.#view.fill(0, this.#length);
    const rest = this.#view.subarray(this.#hashed, this.#length);
    return Promise.resolve(rootOf([...this.#leaves, ...leavesToEnd(rest)]));
  }

  ended(): Promise<void> {
    return Promise.resolve();
  }
}
