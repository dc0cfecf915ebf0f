import { expect, test } from "vitest";
import { parseMooncakeAddress } from "./address.ts";

test("a master, with what is left out", () => {
  expect(parseMooncakeAddress("mooncake://pool.example")).toEqual({
    master: "pool.example:50051",
    python: "python3",
    prefix: "reprise:",
    protocol: "tcp",
    device: "",
    metadata: "P2PHANDSHAKE",
    host: "",
    segmentBytes: 0,
    compress: "none",
  });
});

test("everything that can be said", () => {
  const more =
    "python=/bin/sh&prefix=a/b:&protocol=rdma&device=mlx5_0,mlx5_1&host=10.0.0.7&segment=2GiB&compress=lossless";
  const metadata = encodeURIComponent("http://10.0.0.1:8080/metadata");
  expect(parseMooncakeAddress(`mooncake://[::1]:6000?${more}&metadata=${metadata}`)).toEqual({
    master: "[::1]:6000",
    python: "/bin/sh",
    prefix: "a/b:",
    protocol: "rdma",
    device: "mlx5_0,mlx5_1",
    metadata: "http://10.0.0.1:8080/metadata",
    host: "10.0.0.7",
    segmentBytes: 2 * 2 ** 30,
    compress: "lossless",
  });
});

test("the setting names the Python, unless the address does", () => {
  expect(parseMooncakeAddress("mooncake://a", "/bin/sh").python).toBe("/bin/sh");
  expect(parseMooncakeAddress("mooncake://a?python=python3.12", "/bin/sh").python).toBe("python3.12");
  expect(() => parseMooncakeAddress("mooncake://a", "/nope/python")).toThrow(/cannot be run/);
});

test.each([
  ["mooncake:/a", /must look like/],
  ["mooncake://", /must look like/],
  ["mooncake://user@a", /must look like/],
  ["mooncake://a:70000", /must look like/],
  ["mooncake://a,b", /must look like/],
  ["mooncake://a/db", /must look like/],
  ["mooncake://a?ttl=1h", /no parameter "ttl"; there are: python,/],
  ["mooncake://a?python=", /python is empty/],
  ["mooncake://a?python=/nope/python", /python \/nope\/python cannot be run/],
  ["mooncake://a?prefix=a%20b", /prefix "a b" is no/],
  ["mooncake://a?protocol=udp", /protocol "udp" is no protocol: tcp or rdma/],
  ["mooncake://a?device=mlx5_0", /device is for protocol=rdma/],
  ["mooncake://a?protocol=rdma&device=a b", /device "a b" is no/],
  ["mooncake://a?metadata=$(x)", /metadata .* is no address/],
  ["mooncake://a?prefix=a&prefix=b", /prefix is given twice/],
  ["mooncake://a?compress=lz4", /compress "lz4" is none of/],
  ["mooncake://a?host=a/b", /host "a\/b" is no/],
  ["mooncake://a?host=a:1", /host "a:1" is no/],
  ["mooncake://a?segment=much", /segment: "much" is not a size/],
])("%s is refused", (address, fault) => {
  expect(() => parseMooncakeAddress(address)).toThrow(fault);
  expect(() => parseMooncakeAddress(address)).toThrow(expect.objectContaining({ code: "BAD_CONFIG" }) as Error);
});
