import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { peersOf, startHost } from "../../test/support/peers.ts";
import { makeCertificate } from "../../test/support/valkey.ts";
import { createLog } from "../log.ts";
import { PayloadPacker } from "../tiers/shared/packing.ts";
import type { PeerAddress } from "./reading/address.ts";
import { PeerTier } from "./reading/peer-tier.ts";

const large = { slotBytes: 4 * 1024 * 1024, poolBytes: 256 * 1024 * 1024 };
const token = "a-token-of-the-tests";

function credentials() {
  const { key, certificate } = makeCertificate(temporaryDirectory());
  const cert = readFileSync(certificate);
  const pin = new X509Certificate(cert).fingerprint256.replaceAll(":", "").toLowerCase();
  return { key: readFileSync(key), cert, pin };
}

test("over TLS, with the certificate that was given or pinned, and the token", async () => {
  const tls = credentials();
  await using far = await startHost({ ...large, server: { tls, token } });
  await far.save(40, 4_000_000);
  const packer = PayloadPacker.open();
  for (const trust of [
    { tls: { ca: tls.cert } },
    { tls: { pin: tls.pin } },
    { tls: { pin: tls.pin }, compress: "lossless" },
  ] as const) {
    const tier = await peersOf([{ ...far.address, ...trust, token }], { packer });
    await using near = await startHost({ ...large, tiers: [tier] });
    expect(await near.load(40, 4_000_000)).toBe(40);
    expect(near.cache.stats()).toMatchObject({ corruptRecords: 0, tiers: { peer: { failures: 0 } } });
  }
  expect(far.cache.stats().leases).toBe(0);
});

test("another certificate, a wrong token, TLS where there is none and none where there is: away, with the reason", async () => {
  const [tls, other] = [credentials(), credentials()];
  await using far = await startHost({ server: { tls, token } });
  await using bare = await startHost({ server: { token } });
  await far.save(40);
  const reasonOf = async (address: PeerAddress): Promise<string> => {
    let said = "";
    const log = createLog({ level: "debug", write: (line) => (said += line) });
    const tier = new PeerTier({ hosts: [address], log });
    await using near = await startHost({ tiers: [tier] });
    await expect.poll(() => said, { timeout: 8000 }).toMatch(/not there/);
    expect(await near.load(40)).toBe(0);
    return said;
  };
  const right = { ...far.address, token, tls: { pin: tls.pin } };
  expect(await reasonOf({ ...right, tls: { ca: other.cert } })).toMatch(/self-signed certificate/);
  expect(await reasonOf({ ...right, tls: { pin: other.pin } })).toMatch(/another certificate than the pinned one/);
  expect(await reasonOf({ ...right, token: "another-token-of-tests" })).toMatch(/the token is not this host's/);
  expect(await reasonOf({ ...right, token: "" })).toMatch(/the token is not this host's/);
  expect(await reasonOf({ ...right, tls: undefined })).toMatch(/not there/);
  expect(await reasonOf({ ...bare.address, token, tls: { pin: tls.pin } })).toMatch(/not there/);
  expect(far.server.stats().servedChunks + bare.server.stats().servedChunks).toBe(0);
}, 60_000);

test("nonsense at a TLS port ends that connection, and no other", async () => {
  const tls = credentials();
  await using far = await startHost({ server: { tls, token, maxConnections: 4, times: { helloMs: 300 } } });
  await far.save(40);
  const tier = await peersOf([{ ...far.address, tls: { pin: tls.pin }, token }]); // three of them
  await using near = await startHost({ tiers: [tier] });
  for (const bytes of [Buffer.from("GET / HTTP/1.1\r\n\r\n"), Buffer.alloc(70_000), Buffer.from([0x16, 3, 1])]) {
    const socket = connect(far.server.port, "127.0.0.1");
    socket.on("error", () => {});
    socket.resume();
    socket.write(bytes);
    await new Promise((resolve) => socket.once("close", resolve));
  }
  expect(await near.load(40)).toBe(40);
});
