/**
 * Values in the pool of a Mooncake cluster. Mooncake forgets: what is used least makes room for what is new, and what lay in the
 * memory of a host goes with it.
 *
 *     heads ────► gathered into one slot, many in one request: their lengths first, so that they lie close
 *     a piece ──► a request of its own, in and out of its slot; as many at a time as there are slots
 *
 * A value that is written anew replaces the old one (values.py says why that is not what Mooncake does by itself). Whoever reads it
 * meanwhile finds none, or some bytes of each: heads and payloads carry checksums, and pieces have names of their own.
 */
import { assert } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import type { NamedValue, ValueStore } from "../shared/value-store.ts";
import type { MooncakeAddress } from "./address.ts";
import { MooncakeClient } from "./mooncake-client.ts";
import { slotBytes } from "./slots.ts";

/**
 * Mooncake's error codes (mooncake-store/include/types.h) that are answers. No value: one that is being written, none, one whose time
 * ended meanwhile, a longer one, one whose host is gone.
 */
const noValue: readonly number[] = [-703, -704, -707, -600, -800];
/** No room that nobody reads from, or a tenant's quota. */
const noRoom: readonly number[] = [-200, -1700];
/** The process's own (values.py): of a small value. */
const none = -1;
const didNotFit = -2;

/** In one request. */
const mostNames = 512;
/** How long a pool that was full is left alone: a write that it refuses is what makes it evict, some hundredths of what it has. */
const fullMs = 1000;

export class MooncakeStore implements ValueStore {
  readonly tier = "mooncake";
  /** Its master. */
  readonly where: string;
  readonly #client: MooncakeClient;
  #fullUntil = 0;

  /** Connects in the background: a pool that is away is away, and the cache starts without it. */
  constructor(address: MooncakeAddress, log: Log = silentLog) {
    this.where = address.master;
    this.#client = new MooncakeClient(address, log);
  }

  /** Of the process of Mooncake's client. */
  get pid(): number | undefined {
    return this.#client.pid;
  }

  async getAll(names: readonly string[], maxBytes: number, signal: AbortSignal): Promise<(Buffer | undefined)[]> {
    const groups = Array.from({ length: Math.ceil(names.length / mostNames) }, (_, i) =>
      names.slice(i * mostNames, (i + 1) * mostNames),
    );
    const found = await Promise.all(groups.map((group) => this.#gather(group, maxBytes, signal)));
    return found.flat();
  }

  read(name: string, into: Uint8Array, signal: AbortSignal): Promise<"read" | "gone"> {
    mustFit(into);
    return this.#client.ask(
      "payload",
      signal,
      ({ at }) => ({ do: "get", names: [name], at: [at], bytes: [into.length] }),
      ([result], { memory }) => {
        if (result === into.length) {
          into.set(memory.subarray(0, into.length));
          return "read";
        }
        if (result! >= 0 || noValue.includes(result!)) return "gone"; // one for each name
        throw failed("get", result!);
      },
    );
  }

  /** What anybody writes takes the same memory: there is no share of one tenant's. */
  async write(values: readonly NamedValue[], _tenant: string, signal: AbortSignal): Promise<"written" | "full"> {
    if (performance.now() < this.#fullUntil) return "full";
    const ended = await Promise.allSettled(values.slice(0, -1).map((each) => this.#put(each, signal)));
    for (const each of ended) if (each.status === "rejected") throw each.reason;
    const isFull = ended.some((each) => each.status === "fulfilled" && each.value === "full");
    if (!isFull && (await this.#put(values.at(-1)!, signal)) === "written") return "written"; // a head at least
    this.#fullUntil = performance.now() + fullMs;
    return "full";
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]();
  }

  async #gather(names: readonly string[], most: number, signal: AbortSignal): Promise<(Buffer | undefined)[]> {
    const values: (Buffer | undefined)[] = [];
    while (values.length < names.length) {
      const rest = names.slice(values.length);
      const got = await this.#client.ask(
        "lookup",
        signal,
        ({ at }) => ({ do: "gather", names: rest, at, bytes: slotBytes, most: Math.min(most, slotBytes) }),
        (results, { memory }) => gathered(results, memory),
      );
      values.push(...got);
    }
    return values;
  }

  #put({ name, bytes }: NamedValue, signal: AbortSignal): Promise<"written" | "full"> {
    mustFit(bytes);
    return this.#client.ask(
      "payload",
      signal,
      ({ at, memory }) => {
        memory.set(bytes);
        return { do: "put", names: [name], at: [at], bytes: [bytes.length] };
      },
      ([result]) => {
        if (result === 0) return "written";
        if (noRoom.includes(result!)) return "full"; // one for each name
        throw failed("put", result!);
      },
    );
  }
}

/** The values of the leading names, up to one that did not fit: one at least. @throws Error when the master was not reached */
function gathered(results: readonly number[], memory: Uint8Array): (Buffer | undefined)[] {
  const values: (Buffer | undefined)[] = [];
  let at = 0;
  for (const result of results) {
    if (result === didNotFit) break;
    if (result < none || at + result > memory.length) throw failed("get", result);
    values.push(result === none ? undefined : Buffer.from(memory.subarray(at, at + result)));
    if (result > 0) at += result;
  }
  if (values.length === 0) throw new Error("it gave no value where one fits");
  return values;
}

function mustFit(bytes: Uint8Array): void {
  assert(bytes.length > 0 && bytes.length <= slotBytes, `a value of ${bytes.length} bytes is no piece`);
}

function failed(what: string, code: number): Error {
  const why = code <= -900 && code > -1000 ? "its master does not answer" : "it failed";
  return new Error(`${why} (${what}: code ${code})`);
}
