/**
 * Two hundred random faults in what hosts share, while they answer: stores killed, failed over, cut off, stopped, filled up; values lost,
 * damaged, stale; a clock an hour off. Nothing may be wrong, fail, or be left over; else this ends with what was.
 *
 *     npm run bench -- shared-faults [--faults 200] [--seed 1] [--lanes valkey,bucket,peer]
 *
 * Needs redis-server and curl; with root and iproute2 Valkey's hosts are network namespaces, with faketime (Debian) clocks move. The three
 * lanes run side by side, each with hosts of its own: some twelve minutes. Figures by lane (test/support/faults/run-faults.ts).
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { bucketLane, peerLane, valkeyLane } from "../test/support/faults/lanes.ts";
import { runFaults, type FaultReport } from "../test/support/faults/run-faults.ts";
import { allEnded } from "../src/tiers/shared/all-ended.ts";
import { printLine } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    faults: { type: "string", default: "200" },
    seed: { type: "string", default: "1" },
    lanes: { type: "string", default: "valkey,bucket,peer" },
  },
});
const lanes = { valkey: valkeyLane, bucket: bucketLane, peer: peerLane };
const names = values.lanes.split(",") as (keyof typeof lanes)[]; // as the help says
const folder = mkdtempSync(join(tmpdir(), "reprise-faults-"));
try {
  const reports = await allEnded(names.map((name, i) => faultsOf(name, i))); // each closes what it has opened
  printLine("shared-faults", Object.fromEntries(reports.map((each) => [each.lane, each])), {
    faults: Number(values.faults),
    seed: Number(values.seed),
  });
} finally {
  rmSync(folder, { recursive: true, force: true });
}

async function faultsOf(name: keyof typeof lanes, i: number): Promise<FaultReport> {
  await using lane = await lanes[name](join(folder, name));
  const share = Math.floor(Number(values.faults) / names.length) + (i < Number(values.faults) % names.length ? 1 : 0);
  return await runFaults(lane, { count: share, seed: Number(values.seed) + 100 * i }); // before the lane is closed
}
