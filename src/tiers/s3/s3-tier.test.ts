import { randomBytes } from "node:crypto";
import { afterAll } from "vitest";
import { servers, tierOf, type S3Server } from "../../../test/support/s3.ts";
import { PayloadPacker } from "../shared/packing.ts";
import { TierKey } from "../shared/tier-keys.ts";
import { tierSuite } from "../tier-suite.ts";

const keys = [new TierKey(randomBytes(32))];
const running = new Map<string, Promise<S3Server>>();
let fixtures = 0;

afterAll(async () => {
  for (const server of running.values()) await (await server)[Symbol.asyncDispose]();
});

if (servers.length < 3)
  process.stderr.write(
    "S3 is tested with a fake alone: REPRISE_TEST_MOTO and REPRISE_TEST_SEAWEEDFS (.ci/run) are not both there.\n",
  );

// One of each kind for all tests: some take seconds to start.
for (const { name, start } of servers)
  for (const [how, tierKeys, compress] of [
    ["open", [], "none"],
    ["sealed", keys, "none"],
    ["packed", [], "lossless"],
    ["packed and sealed", keys, "lossless"],
  ] as const)
    tierSuite(`S3 as ${name}, ${how}`, async () => {
      const server = await (running.get(name) ?? running.set(name, start()).get(name)!); // set just now
      const prefix = `test-${(fixtures += 1)}`;
      return {
        capacityBytes: 4 * 1024 * 1024,
        open: () => Promise.resolve(tierOf(server, { prefix, keys: tierKeys, compress, packer: PayloadPacker.open() })),
        dispose: async () => {},
      };
    });
