import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { peersOf, startHost } from "../../test/support/peers.ts";
import { makeCertificate } from "../../test/support/valkey.ts";
import { createLog } from "../log.ts";

const large = { slotBytes: 4 * 1024 * 1024, poolBytes: 256 * 1024 * 1024 };

function credentials() {
  const { key, certificate } = makeCertificate(temporaryDirectory());
  return { key: readFileSync(key), cert: readFileSync(certificate), path: certificate };
}

test("over TLS, with the certificate that was given", async () => {
  const tls = credentials();
  await using far = await startHost({
    ...large,
    server: { tls, token: "a-token-of-tests", log: createLog({ level: "debug" }) },
  });
  await far.save(80, 4_000_000);
  const tier = await peersOf([{ ...far.address, tls: { ca: tls.cert }, token: "a-token-of-tests" }], {
    log: createLog({ level: "debug" }),
  });
  await using near = await startHost({ ...large, tiers: [tier] });
  expect(await near.load(80, 4_000_000)).toBe(80);
  expect(near.cache.stats()).toMatchObject({ corruptRecords: 0, tierFailures: 0 });
});
