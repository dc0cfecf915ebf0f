import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../../test/support/data-directory.ts";
import { elfFile, fatBinary } from "../../../../test/support/fat-binary.ts";
import { cudaCodeIn } from "./cuda-code.ts";

function written(bytes: Uint8Array): string {
  const path = join(temporaryDirectory(), "libggml-cuda.so");
  writeFileSync(path, bytes);
  return path;
}

const code = fatBinary([
  { kind: "ptx", architecture: 90, version: [9, 1] },
  { kind: "machine", architecture: 120, isExact: true },
  { kind: "machine", architecture: 86 },
]);

test("machine code, PTX and the runtime are read from a library", () => {
  const names = Buffer.from("\0libggml-base.so\0libcudart.so.13\0", "latin1");
  expect(cudaCodeIn(written(elfFile({ ".dynstr": names, ".nv_fatbin": code })))).toEqual({
    machine: [
      { architecture: 86, isExact: false },
      { architecture: 120, isExact: true },
    ],
    ptx: [{ architecture: 90, major: 9, minor: 1 }],
    runtime: 13,
  });
});

test("of a file that is cut, damaged, something else or not there, nothing is known", () => {
  const whole = elfFile({ ".nv_fatbin": code });
  expect(cudaCodeIn(written(whole))?.runtime).toBeUndefined();
  expect(cudaCodeIn(written(whole.subarray(0, whole.length - 70)))).toBeUndefined();
  expect(cudaCodeIn(written(elfFile({ ".text": code })))).toBeUndefined();
  expect(cudaCodeIn(written(Buffer.from("no library")))).toBeUndefined();
  expect(cudaCodeIn("/nowhere/libggml-cuda.so")).toBeUndefined();
  // An entry that ends where it begins, and one that never ends.
  const endless = Buffer.from(code).fill(0, 16 + 4, 16 + 16);
  expect(cudaCodeIn(written(elfFile({ ".nv_fatbin": endless })))).toBeUndefined();
  const huge = Buffer.from(code).fill(0x7f, 8, 16);
  expect(cudaCodeIn(written(elfFile({ ".nv_fatbin": huge })))).toBeUndefined();
});
