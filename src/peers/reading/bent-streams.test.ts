/** What comes from another host, cut or bent at every place: nothing but the payload counts as read, and nothing is written beside it. */
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { counting } from "../../../test/support/cache.ts";
import { numbers } from "../../../test/support/kv-sample.ts";
import { StandInCache } from "../../../test/support/stand-in-cache.ts";
import { openZstd } from "../../ffi/zstd.ts";
import { blockBytes, PayloadPacker } from "../../tiers/shared/packing.ts";
import { rootOf } from "../../tiers/payload-checksum.ts";
import { noSignal, recordOf } from "../../tiers/tier-suite.ts";
import { encodeFrame } from "../../wire/frames.ts";
import { type PeerAnswer, peerAnswerMap, peerRequestMap, peerVersion } from "../protocol.ts";
import { PeerServer } from "../serving/peer-server.ts";
import { PeerLink } from "./peer-link.ts";

const payload = numbers(5001);
const record = recordOf(counting(4), [payload]);
const guard = 4096;
const welcome = encodeFrame(peerAnswerMap({ type: "welcome", id: 1, version: peerVersion }));
const frame = (answer: PeerAnswer) => encodeFrame(peerAnswerMap(answer));
/** Also of sizes that no host may send. */
const block = (...bytes: number[]) => encodeFrame({ type: "block", id: 2, bytes });

/** What a true host answers to a fetch for the chunk packed, after its welcome. */
async function trueAnswer(): Promise<Buffer> {
  const cache = new StandInCache();
  cache.chunks.set(record.key, { record, payloads: [payload] });
  await using server = await PeerServer.listen({ cache, host: "127.0.0.1", port: 0, times: { idleMs: 200 } });
  const parts = [{ part: 0, roomBytes: payload.length }];
  const socket = connect(server.port, "127.0.0.1");
  const pieces: Buffer[] = [];
  socket.on("data", (piece: Buffer) => pieces.push(piece));
  socket.write(encodeFrame(peerRequestMap({ type: "hello", id: 1, version: peerVersion, token: "" })));
  socket.write(encodeFrame(peerRequestMap({ type: "fetch", id: 2, key: record.key, parts, compress: "lossless" })));
  await once(socket, "close");
  return Buffer.concat(pieces).subarray(welcome.length);
}

/** A host that answers each connection's fetch with what is given to it, and then leaves. */
async function replaying() {
  const host: { answer: Buffer; port: number } = { answer: Buffer.alloc(0), port: 0 };
  const server = createServer((socket) => {
    socket.on("error", () => {});
    let heard = 0;
    socket.on("data", () => {
      heard += 1;
      if (heard === 1) socket.write(welcome);
      else socket.end(host.answer);
    });
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  host.port = (server.address() as AddressInfo).port;
  onTestFinished(() => void server.close());
  return host;
}

describe.skipIf(openZstd() === undefined)("a packed payload that is bent on its way", () => {
  let packer: PayloadPacker;
  let told: Buffer;
  beforeAll(async () => {
    packer = PayloadPacker.open()!; // there is libzstd
    told = await trueAnswer();
  });

  /** Looks around the payload's place, and whether it is left alone afterwards. */
  async function read(host: { readonly port: number }, { bytes = payload.length, asks = true } = {}) {
    const around = new Uint8Array(guard + bytes + guard).fill(0xee);
    const view = around.subarray(guard, guard + bytes);
    const address = { host: "127.0.0.1", port: host.port, tls: undefined, token: "" };
    const options = { address, packer: asks ? packer : undefined, stallMs: 2000, pingMs: 60_000, onOver: () => {} };
    const link = await PeerLink.open(options);
    const outcome = await link.fetch(record.key, [{ part: 0, view }], noSignal).then(
      (fetched) => fetched.outcome,
      (error: unknown) => (/that (belongs nowhere|was not asked for)$/.test(String(error)) ? "refused" : "over"),
    );
    if (outcome === "read") expect(Buffer.compare(view, payload)).toBe(0);
    view.fill(0x77);
    link.destroy(new Error("the test has ended"));
    return {
      outcome,
      leftAlone: () => {
        const isAround = [...around.subarray(0, guard), ...around.subarray(guard + bytes)].every(
          (byte) => byte === 0xee,
        );
        return isAround && view.every((byte) => byte === 0x77);
      },
    };
  }

  async function outcomes(answers: readonly Buffer[]) {
    const host = await replaying();
    const reads: Awaited<ReturnType<typeof read>>[] = [];
    for (const answer of answers) {
      host.answer = answer;
      reads.push(await read(host));
    }
    expect(reads.every(({ leftAlone }) => leftAlone())).toBe(true);
    return reads.map(({ outcome }) => outcome);
  }

  test("cut at any byte it is not read, and whole it is", async () => {
    const places = Array.from({ length: told.length }, (_, at) => at);
    expect(new Set(await outcomes(places.map((at) => told.subarray(0, at))))).toEqual(new Set(["over"]));
    expect(await outcomes([told])).toEqual(["read"]);
  }, 60_000);

  test("with any byte changed it is what it was, or it is not read", async () => {
    const places = Array.from({ length: told.length }, (_, at) => at);
    const bent = places

      .map((at) => {
        const copy = Buffer.from(told);
        copy[at]! ^= 1 << (at % 8);
        return copy;
      });
    const all = await outcomes(bent); // compares what counts as read
    expect(all.filter((outcome) => outcome === "read").length).toBeLessThan(all.length / 20);
    expect(all).toContain("corrupt");
  }, 60_000);

  const announced = frame({ type: "payload", id: 2, part: 0, length: payload.length, isPacked: true });
  const sent = frame({ type: "sent", id: 2, checksums: [rootOf([])] });
  const gone = frame({ type: "gone", id: 2 });
  const some = Buffer.alloc(20_000, 0x28);

  test.each<[string, readonly Buffer[], string]>([
    ["a block without a size", [announced, block(), some], "refused"],
    ["a block with three sizes", [announced, block(1, 1, 1), some], "over"],
    ["a block of nothing", [announced, block(0), sent], "refused"],
    ["planes of nothing", [announced, block(0, 0), sent], "refused"],
    ["a block that is longer than its place", [announced, block(payload.length + 1), some], "refused"],
    ["a plane that is longer than its own", [announced, block(2502, 1), some], "refused"],
    ["a second plane that is", [announced, block(1, 2501), some], "refused"],
    ["a block as long as there may be any", [announced, block(blockBytes), some], "refused"],
    ["a block of no payload", [block(10), some], "refused"],
    ["a second block where there is one", [announced, block(20), some.subarray(0, 20), block(20), some], "refused"],
    ["a second payload", [announced, announced, block(20), some], "refused"],
    ["an end before the block", [announced, sent], "corrupt"],
    ["an end before its bytes", [announced, block(20), sent], "over"],
    ["gone before the block", [announced, gone], "gone"],
    [
      "another length",
      [frame({ type: "payload", id: 2, part: 0, length: 5000, isPacked: true }), block(20), some],
      "refused",
    ],
    ["noise of the right size", [announced, block(900, 700), some.subarray(0, 1600), sent], "corrupt"],
  ])("%s ends it", async (_, pieces, outcome) => {
    expect(await outcomes([Buffer.concat(pieces)])).toEqual([outcome]);
  });

  test("a bomb fills no more than the block's place", async () => {
    const bomb = Buffer.alloc(2500);
    const bytes = (await openZstd()!.compress(new Uint8Array(16 * blockBytes), bomb))!; // there is libzstd
    const packed = bomb.subarray(0, bytes);
    const asAWhole = Buffer.concat([announced, block(bytes), packed, sent]);
    const asPlanes = Buffer.concat([announced, block(bytes, bytes), packed, packed, sent]);
    expect(await outcomes([asAWhole, asPlanes])).toEqual(["corrupt", "corrupt"]);
  });

  test("who did not ask for it is sent nothing packed", async () => {
    const host = await replaying();
    host.answer = told;
    const { outcome, leftAlone } = await read(host, { asks: false });
    expect([outcome, leftAlone()]).toEqual(["refused", true]);
  });

  test("a reader that gives up while blocks are unpacked has its memory to itself when it is told so", async () => {
    const long = numbers(8 * blockBytes);
    const cache = new StandInCache();
    cache.chunks.set(record.key, { record: recordOf(counting(4), [long]), payloads: [long] });
    await using server = await PeerServer.listen({ cache, host: "127.0.0.1", port: 0 });
    const address = { host: "127.0.0.1", port: server.port, tls: undefined, token: "" };
    for (let ms = 0; ms < 40; ms += 4) {
      const link = await PeerLink.open({ address, packer, stallMs: 2000, pingMs: 60_000, onOver: () => {} });
      const view = new Uint8Array(long.length);
      const given = new AbortController();
      const fetched = link.fetch(record.key, [{ part: 0, view }], given.signal).catch(() => "over");
      setTimeout(() => given.abort(), ms);
      await fetched;
      view.fill(0x77);
      await new Promise((resolve) => setTimeout(resolve, 20));
      expect(view.every((byte) => byte === 0x77)).toBe(true);
      link.destroy(new Error("the test has ended"));
    }
    await expect.poll(() => cache.leases).toBe(0);
  });
});
