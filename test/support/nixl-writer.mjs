// Writes values into a shared folder through NIXL until it is killed: `node nixl-writer.mjs ADDRESS WHEEL BYTES`. It runs what is built,
// as its threads do.
import { randomBytes } from "node:crypto";

const built = (name) => import(new URL(`../../dist/${name}`, import.meta.url).href);
const { silentLog } = await built("log.js");
const { parseNixlAddress } = await built("tiers/nixl/address.js");
const { findNixl } = await built("tiers/nixl/library.js");
const { NixlStore } = await built("tiers/nixl/nixl-store.js");

const [, , text, wheel, bytes] = process.argv;
const address = parseNixlAddress(text);
const store = new NixlStore({ address, library: findNixl(wheel, address.plugin), log: silentLog });
for (let i = 0; ; i += 1) {
  const value = { name: `${randomBytes(16).toString("hex")}:0:0`, bytes: Buffer.alloc(Number(bytes), (i % 255) + 1) };
  await store.write([value], "a", new AbortController().signal);
  if (i === 0) process.stdout.write("writing\n");
}
