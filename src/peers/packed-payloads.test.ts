import { randomBytes } from "node:crypto";
import { connect } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { numbers } from "../../test/support/kv-sample.ts";
import { peersOf } from "../../test/support/peers.ts";
import { StandInCache } from "../../test/support/stand-in-cache.ts";
import { openZstd } from "../ffi/zstd.ts";
import type { RecordId } from "../tier.ts";
import { blockBytes, PayloadPacker } from "../tiers/shared/packing.ts";
import { noSignal, recordOf } from "../tiers/tier-suite.ts";
import { counting } from "../../test/support/cache.ts";
import { encodeFrame } from "../wire/frames.ts";
import { peerRequestMap, peerVersion } from "./protocol.ts";
import { PeerServer, type PeerServerOptions } from "./serving/peer-server.ts";

const firstHosts = 0 as RecordId;

/** A host with one chunk, and a way to read it there. */
async function hostWith(payload: Uint8Array, options: Partial<PeerServerOptions> = {}) {
  const cache = new StandInCache();
  const record = recordOf(counting(4), [payload]);
  cache.chunks.set(record.key, { record, payloads: [payload] });
  const server = await PeerServer.listen({ cache, host: "127.0.0.1", port: 0, ...options });
  onTestFinished(() => server.close());
  const reader = async (compress: "none" | "lossless") => {
    const address = { host: "127.0.0.1", port: server.port, tls: undefined, token: "", compress };
    const tier = await peersOf([address], { packer: PayloadPacker.open() });
    onTestFinished(() => tier[Symbol.asyncDispose]());
    return {
      tier,
      read: async () => {
        const slot = new Uint8Array(Math.ceil(payload.length / 4096) * 4096).fill(0xee);
        const outcome = await tier.read(firstHosts, record.key, [slot], noSignal);
        const isSame = Buffer.compare(slot.subarray(0, payload.length), payload) === 0;
        const isPadded = slot.subarray(payload.length).every((byte) => byte === 0);
        return outcome === "read" && isSame && isPadded ? "the payload" : outcome;
      },
    };
  };
  return { cache, server, record, reader };
}

describe.skipIf(openZstd() === undefined)("payloads on their way between hosts", () => {
  test.each([1, 4095, 4096, 5001, blockBytes - 1, blockBytes, blockBytes + 1, 3 * blockBytes + 12_345])(
    "%i bytes are packed where that makes them fewer, and arrive as they are",
    async (bytes) => {
      const [mixed, noise] = [numbers(bytes), randomBytes(bytes)];
      randomBytes(Math.max(0, Math.min(blockBytes, bytes - blockBytes))).copy(mixed, blockBytes);
      for (const payload of [numbers(bytes), mixed, Buffer.alloc(bytes), noise]) {
        const { server, reader } = await hostWith(payload);
        const { tier, read } = await reader("lossless");
        expect(await read()).toBe("the payload");
        const { readStoredBytes } = tier.stats();
        expect(readStoredBytes < bytes).toBe(bytes >= 4096 && payload !== noise);
        expect(readStoredBytes).toBeLessThanOrEqual(bytes);
        expect(server.stats()).toMatchObject({ servedBytes: bytes, servedStoredBytes: readStoredBytes });
      }
    },
  );

  test("nothing is packed for a reader that does not ask for it, or by a host that is told not to", async () => {
    const payload = numbers(2 * blockBytes);
    const willing = await hostWith(payload);
    const unwilling = await hostWith(payload, { compress: "none" });
    for (const { tier, read } of [await willing.reader("none"), await unwilling.reader("lossless")]) {
      expect(await read()).toBe("the payload");
      expect(tier.stats().readStoredBytes).toBe(payload.length);
    }
    const { tier, read } = await willing.reader("lossless");
    expect(await read()).toBe("the payload");
    expect(tier.stats().readStoredBytes).toBeLessThan(0.8 * payload.length);
  });

  test("a question is answered while the host packs for many", async () => {
    const { reader, record } = await hostWith(numbers(24 * blockBytes));
    const readers = await Promise.all(Array.from({ length: 6 }, () => reader("lossless")));
    const order: string[] = [];
    const reads = readers.map(async ({ read }) => order.push(await read()));
    const { tier } = await reader("none");
    const asked = tier.find(record.space, record.root, [record.key], noSignal).then(() => order.push("an answer"));
    await Promise.all([...reads, asked]);
    expect(order[0]).toBe("an answer");
    expect(order.filter((each) => each === "the payload")).toHaveLength(6);
  });

  test("readers that leave in the middle, a thousand fetches together, leave no lease and no room behind", async () => {
    const payload = numbers(4 * blockBytes);
    const { cache, server, reader, record } = await hostWith(payload, { maxConnections: 100 });
    for (let round = 0; round < 4; round += 1) {
      const readers = await Promise.all(Array.from({ length: 25 }, () => reader("lossless")));
      const reads = readers.flatMap(({ tier }) =>
        Array.from({ length: 10 }, () => {
          const slot = new Uint8Array(payload.length);
          return tier.read(firstHosts, record.key, [slot], noSignal).catch(() => "left");
        }),
      );
      const { servedChunks } = server.stats();
      await expect.poll(() => server.stats().servedChunks).toBeGreaterThan(servedChunks);
      expect(cache.leases).toBeGreaterThan(10);
      await Promise.all(readers.map(({ tier }) => tier[Symbol.asyncDispose]()));
      expect(await Promise.all(reads)).toContain("left");
      await expect.poll(() => server.stats().connections).toBe(0);
      expect(cache.leases).toBe(0);
    }
    const { tier, read } = await reader("lossless");
    for (let i = 0; i < 20; i += 1) expect(await read()).toBe("the payload");
    expect(tier.stats().readStoredBytes).toBeLessThan(0.75 * 20 * payload.length);
  }, 60_000);

  test("a reader that takes nothing is disconnected, and others are packed for meanwhile", async () => {
    const payload = numbers(24 * blockBytes);
    const { cache, server, reader, record } = await hostWith(payload, { times: { stallMs: 500 } });
    const idle = await reader("none");
    const parts = [{ part: 0, roomBytes: payload.length }];
    const requests = [
      { type: "hello", id: 1, version: peerVersion, token: "" },
      { type: "fetch", id: 2, key: record.key, parts, compress: "lossless" },
    ] as const;
    for (let i = 0; i < 10; i += 1) {
      const socket = connect(server.port, "127.0.0.1")
        .on("error", () => {})
        .pause();
      onTestFinished(() => void socket.destroy());
      for (const request of requests) socket.write(encodeFrame(peerRequestMap(request)));
    }
    await expect.poll(() => cache.leases).toBe(10);
    const { tier, read } = await reader("lossless");
    expect(await read()).toBe("the payload");
    expect(tier.stats().readStoredBytes).toBeLessThan(payload.length);
    await expect.poll(() => server.stats().connections, { timeout: 10_000 }).toBe(6); // the others' three each
    expect(cache.leases).toBe(0);
    expect(await idle.read()).toBe("the payload");
  }, 30_000);
});
