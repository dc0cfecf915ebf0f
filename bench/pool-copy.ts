/**
 * Is the shared pool as fast as memory? Payloads copied into pool slots and out of them, against the same copies between
 * ordinary buffers in the same run.
 *
 *     npm run bench -- pool-copy
 *
 * Each copy has another place, and all places together are larger than the processor's caches. The first pass over the pool,
 * in which its pages are made, is told apart.
 */
import { randomBytes } from "node:crypto";
import { testPool } from "../test/support/cache.ts";
import { gigabytesPerSecond, printLine, rounded, timesOf } from "./support/timing.ts";

const payloadBytes = 2 ** 20;
const places = 192;
const passes = 10;

await using pool = testPool(2 * places * payloadBytes);
const source = randomBytes(payloadBytes);
const offsets = Array.from({ length: places }, () => {
  const offset = pool.allocate(payloadBytes);
  if (offset === "full") throw new Error("the pool is smaller than it should be");
  return offset;
});
const plain = Array.from({ length: places }, () => new Uint8Array(payloadBytes).fill(1));
const target = new Uint8Array(payloadBytes);

const first: number[] = [];
for (const offset of offsets) {
  const started = performance.now();
  pool.view(offset, payloadBytes).set(source);
  first.push(performance.now() - started);
}
const inPool = (place: number) => pool.view(offsets[place]!, payloadBytes); // place < places
const copies = {
  into: (place: number) => inPool(place).set(source),
  plainInto: (place: number) => plain[place]!.set(source), // as many as offsets
  outOf: (place: number) => target.set(inPool(place)),
  plainOutOf: (place: number) => target.set(plain[place]!),
};
const times = { into: [] as number[], plainInto: [] as number[], outOf: [] as number[], plainOutOf: [] as number[] };
// By turns, a pass over all places each, so that a machine that grows busy favours nobody.
for (let pass = 0; pass < passes; pass += 1) {
  for (const kind of ["into", "plainInto", "outOf", "plainOutOf"] as const) {
    times[kind].push(...(await timesOf(places, (place) => copies[kind](place % places))));
  }
}

const [poolIn, plainIn] = [
  gigabytesPerSecond(payloadBytes, times.into),
  gigabytesPerSecond(payloadBytes, times.plainInto),
];
const [poolOut, plainOut] = [
  gigabytesPerSecond(payloadBytes, times.outOf),
  gigabytesPerSecond(payloadBytes, times.plainOutOf),
];
printLine(
  "pool-copy",
  {
    intoPoolGBps: poolIn,
    intoPlainGBps: plainIn,
    outOfPoolGBps: poolOut,
    outOfPlainGBps: plainOut,
    intoRatio: rounded(poolIn / plainIn),
    outOfRatio: rounded(poolOut / plainOut),
    firstPassGBps: gigabytesPerSecond(payloadBytes, first),
  },
  { payloadBytes, places, passes },
);
