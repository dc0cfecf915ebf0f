import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { parseNixlAddress } from "./address.ts";

test("a folder, with what is left out and with everything that can be said", () => {
  expect(parseNixlAddress("nixl://posix/mnt/shared/reprise", {})).toEqual({
    plugin: "POSIX",
    folder: "/mnt/shared/reprise",
    ttlSeconds: 7 * 86_400,
    maxBytes: undefined,
    parameters: { use_aio: "true", ios_pool_size: "64" },
    transfers: 4,
    library: undefined,
    compress: "none",
  });
  const more = "?ttl=12h&max=10GiB&queue=uring&transfers=8&library=/opt/wheel&compress=lossless";
  expect(parseNixlAddress(`nixl://POSIX/mnt/a%20b/${more}`, {})).toEqual({
    plugin: "POSIX",
    folder: "/mnt/a b",
    ttlSeconds: 43_200,
    maxBytes: 10 * 2 ** 30,
    parameters: { use_uring: "true", ios_pool_size: "64" },
    transfers: 8,
    library: "/opt/wheel",
    compress: "lossless",
  });
});

test("a bucket of AWS, and one of another store", () => {
  expect(parseNixlAddress("nixl://obj/kv-cache", { AWS_REGION: "eu-west-1" })).toMatchObject({
    plugin: "OBJ",
    prefix: "reprise",
    parameters: { bucket: "kv-cache", region: "eu-west-1", use_virtual_addressing: "true", req_checksum: "required" },
  });
  const ca = join(temporaryDirectory(), "ca.pem");
  writeFileSync(ca, "a certificate");
  expect(
    parseNixlAddress(`nixl://obj/kv-cache/a/b?endpoint=https://store.example:9000&region=here&ca=${ca}`, {}),
  ).toMatchObject({
    prefix: "a/b",
    parameters: {
      endpoint_override: "https://store.example:9000",
      scheme: "https",
      region: "here",
      use_virtual_addressing: "false",
      ca_bundle: ca,
    },
  });
});

for (const [address, why] of [
  ["nixl:posix", "must look like nixl://posix/ABSOLUTE/FOLDER"],
  ["nixl://gds/mnt/a", 'no plugin "gds"'],
  ["nixl://posix", "a folder must follow"],
  ["nixl://posix/mnt/../etc", "without . and .."],
  ["nixl://posix/mnt/%2e%2e/etc", "without . and .."],
  ["nixl://posix/mnt/a%00b", "without . and .."],
  ["nixl://posix/mnt/%zz", "hexadecimal"],
  ["nixl://posix/mnt/a?ttl=5m", "no time of ten minutes or more"],
  ["nixl://posix/mnt/a?max=lots", "max"],
  ["nixl://posix/mnt/a?queue=posix_aio", "aio, uring"],
  ["nixl://posix/mnt/a?transfers=0", "from 1 to 16"],
  ["nixl://posix/mnt/a?endpoint=http://b", 'no parameter "endpoint"'],
  ["nixl://obj/kv-cache?ttl=7d", 'no parameter "ttl"'],
  ["nixl://obj/UPPER", "no name of a bucket"],
  ["nixl://obj/kv-cache/../x", "no name of dots alone"],
  ["nixl://obj/kv-cache?endpoint=http://key:secret@store", "keys have no place"],
  ["nixl://obj/kv-cache?ca=/nowhere/ca.pem", "cannot be read"],
] as const)
  test(`${address} is refused`, () => {
    expect(() => parseNixlAddress(address, {})).toThrowError(
      expect.objectContaining({ code: "BAD_CONFIG", message: expect.stringContaining(why) as string }),
    );
  });
