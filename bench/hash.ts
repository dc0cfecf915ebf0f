/**
 * What do hashes cost? the checksum of a payload, as the disk tier computes it once per write and read; and the chained
 * SHA-256 keys of a long prompt's chunks, as saving computes them.
 *
 *     npm run bench -- hash
 */
import { randomBytes } from "node:crypto";
import { bareRoot, chunkKeys, rootKey } from "../src/identity/keys.ts";
import { spaceId } from "../src/identity/space.ts";
import { payloadChecksum } from "../src/tiers/payload-checksum.ts";
import { counting, testSpace } from "../test/support/cache.ts";
import { gigabytesPerSecond, microseconds, printLine, timesOf } from "./support/timing.ts";

const payloadBytes = 4 * 2 ** 20;
const promptTokens = 32_000;
const chunkTokens = 64;
const rounds = 200;

const payload = randomBytes(payloadBytes);
const payloads = await timesOf(rounds, () => payloadChecksum(payload));

const root = rootKey(spaceId(testSpace({ chunkTokens })), bareRoot);
const tokens = counting(promptTokens);
const keys = await timesOf(rounds, () => chunkKeys(root, tokens, chunkTokens));

printLine(
  "hash",
  {
    payloadGBps: gigabytesPerSecond(payloadBytes, payloads),
    payload: microseconds(payloads),
    promptKeys: microseconds(keys),
  },
  {
    payloadBytes,
    payloadHash: "xxh3-128 over xxh64 of 256 KiB pieces",
    promptTokens,
    chunkTokens,
    keyHash: "sha-256",
    rounds,
  },
);
