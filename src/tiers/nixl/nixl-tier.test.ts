import { randomBytes } from "node:crypto";
import { afterAll, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { isHere, maxRecordBytes, tierOf } from "../../../test/support/nixl.ts";
import { bucket, keys, servers, type S3Server } from "../../../test/support/s3.ts";
import { TierKey } from "../shared/tier-keys.ts";
import { tierSuite } from "../tier-suite.ts";

const tierKeys = [new TierKey(randomBytes(32))];
const running = new Map<string, Promise<S3Server>>();
let fixtures = 0;

// NIXL takes keys from where AWS's own programs do.
Object.assign(process.env, keys, { AWS_EC2_METADATA_DISABLED: "true" });

afterAll(async () => {
  for (const server of running.values()) await (await server)[Symbol.asyncDispose]();
});

if (!isHere) test.skip("NIXL is not here", () => {});

for (const [how, sealing] of isHere
  ? ([
      ["open", []],
      ["sealed", tierKeys],
    ] as const)
  : [])
  for (const queue of ["aio", "uring"])
    tierSuite(`NIXL's files by ${queue}, ${how}`, () => {
      const folder = temporaryDirectory();
      return Promise.resolve({
        capacityBytes: maxRecordBytes,
        open: () => Promise.resolve(tierOf(`nixl://posix${folder}?queue=${queue}`, { keys: sealing })),
        dispose: async () => {},
      });
    });

// One of each kind for all tests: some take seconds to start.
for (const { name, start } of isHere ? servers.filter((each) => each.name !== "fake") : [])
  tierSuite(`NIXL's objects in ${name}`, async () => {
    const server = await (running.get(name) ?? running.set(name, start()).get(name)!); // set just now
    const prefix = `nixl-${(fixtures += 1)}`;
    const address = `nixl://obj/${bucket}/${prefix}?endpoint=http://127.0.0.1:${server.port}`;
    return {
      capacityBytes: maxRecordBytes,
      open: () => Promise.resolve(tierOf(address)),
      dispose: async () => {},
    };
  });
