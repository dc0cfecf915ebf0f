/**
 * What would KV be worth packing for a slow link: how small does which way make it, and what does that cost a core?
 *
 *     npm run bench -- compression [--model FILE.gguf]… [--tokens 2048]      the shipped model unless given
 *
 * Real KV: the notes of `src/bench/notes`, read by the model with its cache in each of the types. Rates are bytes of payloads for each
 * second of processor time of all threads, the best of three rounds; every result is unpacked and compared. `stored` is what shared
 * tiers do with `compress=lossless`. Needs libzstd.
 *
 * `paysBelowGbitPerSecond`: the rate of a link below which a payload is sooner in its slot packed, should nothing of unpacking happen
 * while others travel: bytes / link > bytes / ratio / link + bytes / unpacking.
 */
import { basename } from "node:path";
import { parseArgs } from "node:util";
import * as zlib from "node:zlib";
import koffi from "koffi";
import { split } from "../src/tiers/shared/planes.ts";
import { PayloadPacker } from "../src/tiers/shared/packing.ts";
import { kvTypes, realKv } from "./support/real-kv.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({
  options: {
    model: { type: "string", multiple: true, default: ["models/reprise-22m-q8_0.gguf"] },
    tokens: { type: "string", default: "2048" },
  },
});

/** Makes bytes smaller, and gives them back. */
interface Way {
  pack(payload: Uint8Array): Promise<Uint8Array> | Uint8Array;
  unpack(packed: Uint8Array, bytes: number): Promise<Uint8Array> | Uint8Array;
}

const found = PayloadPacker.open();
if (found === undefined) throw new Error("there is no libzstd");
const packer = found;
const native = koffi.load(process.platform === "darwin" ? "libzstd.1.dylib" : "libzstd.so.1");
const compress = native.func("size_t ZSTD_compress(void *into, size_t room, void *from, size_t bytes, int level)");
const decompress = native.func("size_t ZSTD_decompress(void *into, size_t room, void *from, size_t bytes)");

const zstd = (level: number): Way => ({
  pack(payload) {
    const into = new Uint8Array(payload.length + 65_536);
    return into.subarray(0, Number(compress(into, into.length, payload, payload.length, level)));
  },
  unpack(packed, bytes) {
    const into = new Uint8Array(bytes);
    decompress(into, bytes, packed, packed.length);
    return into;
  },
});

/** Planes of numbers, or of blocks, of so many bytes, one behind the other. */
const planes = (width: number, way: Way): Way => ({
  pack: (payload) => way.pack(width === 2 ? halves(payload) : transposed(payload, width)),
  unpack: async (packed, bytes) => restored(await way.unpack(packed, bytes), width),
});

/** Each token's row against the one before it. */
const differences = (rowBytes: number, way: Way): Way => ({
  pack: (payload) => way.pack(payload.map((byte, i) => (i < rowBytes ? byte : byte ^ payload[i - rowBytes]!))),
  async unpack(packed, bytes) {
    const payload = await way.unpack(packed, bytes);
    for (let i = rowBytes; i < bytes; i += 1) payload[i]! ^= payload[i - rowBytes]!;
    return payload;
  },
});

const node = (pack: (bytes: Uint8Array) => Uint8Array, unpack: (bytes: Uint8Array) => Uint8Array): Way => ({
  pack,
  unpack,
});

const stored: Way = {
  pack: async (payload) => (await packer.pack(payload)) ?? payload,
  async unpack(packed, bytes) {
    const place = new Uint8Array(bytes);
    place.set(packed, bytes - packed.length);
    if (packed.length < bytes && !(await packer.unpack(place, packed.length))) throw new Error("it was packed");
    return place;
  },
};

const brotli = { params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 1 } };

const results: object[] = [];
for (const model of values.model)
  for (const type of Object.keys(kvTypes) as (keyof typeof kvTypes)[]) {
    const payloads = realKv(model, type, Number(values.tokens));
    const width = type === "q8_0" ? 34 : 2;
    const ways: Record<string, Way> = {
      stored,
      "zstd 1": zstd(1),
      "zstd 3": zstd(3),
      "planes, zstd 1": planes(width, zstd(1)),
      // A token's row of a layer has 256 bytes of f16 in the shipped model, and 512 in Gemma 3 270M.
      "differences of 256 bytes, planes, zstd 1": differences(256, planes(width, zstd(1))),
      "differences of 512 bytes, planes, zstd 1": differences(512, planes(width, zstd(1))),
      "planes, deflate 1": planes(
        width,
        node((b) => zlib.deflateSync(b, { level: 1 }), zlib.inflateSync),
      ),
      "planes, brotli 1": planes(
        width,
        node((b) => zlib.brotliCompressSync(b, brotli), zlib.brotliDecompressSync),
      ),
    };
    for (const [way, each] of Object.entries(ways))
      results.push({ model: basename(model), type, way, ...(await measured(each, payloads)) });
  }
printLine("compression", results, { tokens: Number(values.tokens), threads: "processor time of all" });

async function measured(way: Way, payloads: readonly Uint8Array[]): Promise<object> {
  const total = payloads.reduce((sum, { length }) => sum + length, 0);
  let [packSeconds, unpackSeconds, packedBytes] = [Infinity, Infinity, 0];
  for (let round = 0; round < 3; round += 1) {
    const packed: Uint8Array[] = [];
    packSeconds = Math.min(packSeconds, await processorSeconds(async () => {
      for (const payload of payloads) packed.push(await way.pack(payload));
    })); // prettier-ignore
    packedBytes = packed.reduce((sum, { length }) => sum + length, 0);
    const back: Uint8Array[] = [];
    unpackSeconds = Math.min(unpackSeconds, await processorSeconds(async () => {
      for (const [i, each] of packed.entries()) back.push(await way.unpack(each, payloads[i]!.length));
    })); // prettier-ignore
    if (back.some((payload, i) => Buffer.compare(payload, payloads[i]!) !== 0))
      throw new Error("other bytes came back");
  }
  const ratio = total / packedBytes;
  return {
    ratio: rounded(ratio),
    packMegabytesPerSecond: rounded(total / packSeconds / 1e6),
    unpackMegabytesPerSecond: rounded(total / unpackSeconds / 1e6),
    paysBelowGbitPerSecond: rounded(Math.max(0, ((total / unpackSeconds) * (1 - 1 / ratio) * 8) / 1e9)),
  };
}

async function processorSeconds(work: () => Promise<void>): Promise<number> {
  const before = process.cpuUsage();
  await work();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1e6;
}

function halves(payload: Uint8Array): Uint8Array {
  const all = new Uint8Array(payload.length);
  const first = Math.ceil(payload.length / 2);
  split(payload, all.subarray(0, first), all.subarray(first));
  return all;
}

/** Plane by plane; what is no whole block stays at the end. */
function transposed(payload: Uint8Array, width: number): Uint8Array {
  const all = Uint8Array.from(payload);
  const count = Math.floor(payload.length / width);
  for (let plane = 0, at = 0; plane < width; plane += 1)
    for (let i = plane; i < count * width; i += width) all[at++] = payload[i]!;
  return all;
}

function restored(all: Uint8Array, width: number): Uint8Array {
  const payload = Uint8Array.from(all);
  const count = width === 2 ? Math.ceil(all.length / 2) : Math.floor(all.length / width);
  const whole = width === 2 ? all.length : count * width;
  for (let plane = 0, at = 0; plane < width; plane += 1)
    for (let i = plane; i < whole; i += width) payload[i] = all[at++]!;
  return payload;
}
