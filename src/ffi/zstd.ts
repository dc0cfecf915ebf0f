/**
 * libzstd, as the machine has it: one-shot calls on other threads, from memory to memory.
 *
 * Neither side of a call ever gets more than it was given: whoever unpacks says how many bytes there must be, and no more are
 * written whatever the packed ones claim.
 */
import koffi from "koffi";
import { addressOf, type Pointer } from "./posix.ts";

const file = process.platform === "darwin" ? "libzstd.1.dylib" : "libzstd.so.1";

/**
 * Of bytes whose frequencies alone are uneven, as exponents' are: level 1 finds matches there that are not worth their code. Long ones
 * only, looked for in a small table, packed exponents of bf16 at 0.8 GB/s instead of 0.25, and smaller.
 */
const settings: readonly (readonly [parameter: number, value: number])[] = [
  [100, 1], // level
  [107, 1], // strategy: fast
  [105, 7], // shortest match
  [102, 6], // log2 of the table's places
];

type Async = (...args: readonly unknown[]) => Promise<number | bigint>;

export class Zstd {
  readonly #compress: Async;
  readonly #decompress: Async;
  readonly #isError: (result: number | bigint) => boolean;
  readonly #newContext: () => unknown;
  /** Each is used by one call at a time, so there are as many as calls were ever under way together. */
  readonly #contexts: unknown[] = [];

  /** @throws when there is no such library, or it lacks something */
  constructor() {
    const library = koffi.load(file);
    const isError = library.func("uint32_t ZSTD_isError(size_t result)");
    const create = library.func("void *ZSTD_createCCtx()");
    const set = library.func("size_t ZSTD_CCtx_setParameter(void *context, int parameter, int value)");
    this.#compress = asynchronous(
      library.func("size_t ZSTD_compress2(void *context, void *into, size_t room, void *from, size_t bytes)"),
    );
    this.#decompress = asynchronous(
      library.func("size_t ZSTD_decompress(void *into, size_t room, void *from, size_t bytes)"),
    );
    this.#isError = (result) => isError(result) !== 0;
    this.#newContext = () => {
      const context: unknown = create();
      if (context === null) throw new Error("libzstd has no memory for a context");
      for (const [parameter, value] of settings)
        if (this.#isError(set(context, parameter, value) as number | bigint))
          throw new Error(`libzstd does not know its parameter ${parameter}`);
      return context;
    };
    this.#contexts.push(this.#newContext());
  }

  /** @returns the bytes written; undefined: they have no room in `into` */
  async compress(from: Uint8Array, into: Uint8Array): Promise<number | undefined> {
    const context = this.#contexts.pop() ?? this.#newContext();
    try {
      const result = await this.#compress(context, placeOf(into), into.length, placeOf(from), from.length);
      return this.#isError(result) ? undefined : Number(result);
    } finally {
      this.#contexts.push(context);
    }
  }

  /** @returns false: it is not what fills `into` */
  async decompress(from: Uint8Array, into: Uint8Array): Promise<boolean> {
    const result = await this.#decompress(placeOf(into), into.length, placeOf(from), from.length);
    return !this.#isError(result) && Number(result) === into.length;
  }
}

let opened: Zstd | "absent" | undefined;

/** Undefined where the machine has none. */
export function openZstd(): Zstd | undefined {
  if (opened === undefined)
    try {
      opened = new Zstd();
    } catch {
      opened = "absent"; // whoever needs it says so
    }
  return opened === "absent" ? undefined : opened;
}

/** It holds while the bytes are referenced, which whoever awaits a call does. */
function placeOf(bytes: Uint8Array): Pointer {
  return addressOf(bytes.buffer) + BigInt(bytes.byteOffset);
}

function asynchronous(call: ReturnType<ReturnType<typeof koffi.load>["func"]>): Async {
  return (...args) =>
    new Promise((resolve, reject) => {
      call.async(...args, (error: Error | null, result: number | bigint) => {
        if (error === null) resolve(result);
        else reject(error);
      });
    });
}
