/**
 * A soak in miniature: sessions that reserve, commit, load, release, abandon and end at random over one small pool, with
 * slots of several sizes. Prints one JSON line: operations, how much memory they left behind, and the invariants checked.
 *
 *     npm run bench -- soak [--operations 2000000] [--seed N] [--json FILE]
 *
 * `rssSlopeBytesPerOperation` is the least-squares slope of the process's private memory over the second half: a leak of
 * one object per operation would show as tens of bytes.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { soak } from "../test/support/soak.ts";

const { values } = parseArgs({
  options: {
    operations: { type: "string", default: "2000000" },
    seed: { type: "string", default: "1" },
    json: { type: "string" },
  },
});
const result = await soak({ operations: Number(values.operations), seed: Number(values.seed) });
const line = `${JSON.stringify(result)}\n`;
process.stdout.write(line);
if (values.json !== undefined) writeFileSync(values.json, line);
