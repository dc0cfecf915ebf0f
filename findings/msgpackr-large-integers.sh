#!/usr/bin/env bash
# msgpackr and whole numbers of more than 32 bits.
#
# Expected: a whole number up to 2^53 - 1, which JavaScript has exactly, is written as a MessagePack integer and read as a
# number, as below 2^32 and as the MessagePack project's own JavaScript library does.
# Happens: from 2^32 on msgpackr writes a float64 (first byte cb). A reader that wants an integer by its type (msgspec in
# Python) refuses it. The other way, a 64-bit integer that somebody else wrote is read as a BigInt, however small.
# Known in msgpackr 2.1.3. src/wire/msgpack.ts reads messages itself, and takes both forms.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init --yes >/dev/null
npm install --silent --no-audit --no-fund --ignore-scripts msgpackr@2.1.3 @msgpack/msgpack@3.1.3

cat >numbers.mjs <<'PROGRAM'
import { readFileSync } from "node:fs";
import { pack, unpack } from "msgpackr";
import { decode, encode } from "@msgpack/msgpack";

const versionOf = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version;
console.log(`msgpackr ${versionOf("msgpackr")}, @msgpack/msgpack ${versionOf("@msgpack/msgpack")}, Node ${process.version}`);

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const facts = [];
const fact = (what, expected, happened, known) => {
  console.log(`${what}: expected ${expected}, happened ${happened}`);
  facts.push(happened === known);
};
fact("msgpackr writes 2^32 - 1", "ceffffffff", hex(pack(2 ** 32 - 1)), "ceffffffff");
fact("msgpackr writes 2^32", hex(encode(2 ** 32)), hex(pack(2 ** 32)), "cb41f0000000000000");
fact("msgpackr reads another's 2^32 as a", "number", typeof unpack(encode(2 ** 32)), "bigint");
fact("the other reads its own 2^32 as a", "number", typeof decode(encode(2 ** 32)), "number");

const isKnown = facts.every(Boolean);
console.log(isKnown ? "as described" : "this has changed: look again");
process.exitCode = isKnown ? 0 : 1;
PROGRAM
node numbers.mjs
