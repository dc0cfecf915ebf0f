/** A store of values in this process, with what tests must be able to see and break. */
import { setTimeout as sleep } from "node:timers/promises";
import { RepriseError } from "../../src/errors.ts";
import type { NamedValue, ValueStore } from "../../src/tiers/shared/value-store.ts";

export class MemoryStore implements ValueStore {
  readonly tier = "valkey";
  readonly values = new Map<string, Buffer>();
  /** How many heads each round trip asked for. */
  readonly roundTrips: number[] = [];
  /** How long a head might be, of each round trip. */
  readonly mostBytes: number[] = [];
  /** Names in the order in which they were written. */
  readonly order: string[] = [];
  failsRead: (name: string) => boolean = () => false;
  readDelayMs = 0;
  readsUnderWay = 0;

  getAll(names: readonly string[], maxBytes: number): Promise<(Buffer | undefined)[]> {
    this.roundTrips.push(names.length);
    this.mostBytes.push(maxBytes);
    const short = (value: Buffer | undefined) => (value === undefined || value.length > maxBytes ? undefined : value);
    return Promise.resolve(names.map((name) => short(this.values.get(name))));
  }

  async read(name: string, into: Uint8Array): Promise<"read" | "gone"> {
    if (this.failsRead(name)) throw new RepriseError("TIER_UNAVAILABLE", "it does not answer");
    this.readsUnderWay += 1;
    if (this.readDelayMs > 0) await sleep(this.readDelayMs);
    this.readsUnderWay -= 1;
    const value = this.values.get(name);
    if (value?.length !== into.length) return "gone";
    into.set(value);
    return "read";
  }

  async write(values: readonly NamedValue[]): Promise<"written"> {
    for (const { name, bytes } of values) {
      await Promise.resolve();
      this.values.set(name, Buffer.from(bytes));
      this.order.push(name);
    }
    return "written";
  }

  async [Symbol.asyncDispose](): Promise<void> {}
}
