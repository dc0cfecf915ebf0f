import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { formatBytes, parseBytes } from "./bytes.ts";
import { resolveConfig } from "./config.ts";
import { RepriseError } from "./errors.ts";

function yamlFile(text: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "reprise-config-")), "reprise.yaml");
  writeFileSync(path, text);
  return path;
}

test("a flag wins over the environment, the environment over the file, the file over the default", () => {
  const filePath = yamlFile("port: 1\nslots: 2\nqueue: 3\n");
  const config = resolveConfig({
    flags: { port: "11" },
    environment: { REPRISE_PORT: "12", REPRISE_SLOTS: "22" },
    filePath,
  });
  expect(config).toMatchObject({ port: 11, slots: 22, queue: 3, host: "127.0.0.1", memory: 2 * 1024 ** 3 });
});

test("every fault of every source is reported in one error", () => {
  const filePath = yamlFile("slotz: 2\nmemory: lots\n");
  const flags = { port: "http", gpu: "maybe" };
  expect(() => resolveConfig({ flags, environment: { REPRISE_PORTS: "1" }, filePath })).toThrow(
    expect.objectContaining({
      code: "BAD_CONFIG",
      message: expect.stringMatching(
        /slotz".*did you mean "slots"[^]*REPRISE_PORTS.*did you mean "REPRISE_PORT"[^]*--port: "http"[^]*memory in .*: "lots"[^]*--gpu: "maybe" is none of auto, off/,
      ) as unknown,
    }) as RepriseError,
  );
});

test("lists come as repeated flags, as commas in the environment and as lists in the file", () => {
  expect(resolveConfig({ flags: { apiKey: ["a", "b"] }, environment: {} }).apiKey).toEqual(["a", "b"]);
  expect(resolveConfig({ flags: {}, environment: { REPRISE_API_KEY: "a,b" } }).apiKey).toEqual(["a", "b"]);
  expect(resolveConfig({ flags: {}, environment: {}, filePath: yamlFile("api-key: [a, b]") }).apiKey).toEqual([
    "a",
    "b",
  ]);
});

test("a configuration file that is missing, broken or no map is a fault", () => {
  for (const filePath of ["/nonexistent.yaml", yamlFile("- a\n- b"), yamlFile("a: [")]) {
    expect(() => resolveConfig({ flags: {}, environment: {}, filePath })).toThrow(RepriseError);
  }
  expect(resolveConfig({ flags: {}, environment: {}, filePath: yamlFile("") }).slots).toBe(4);
});

test("sizes are read and written", () => {
  expect([parseBytes("2GiB"), parseBytes("1.5 kb"), parseBytes("7")]).toEqual([2 * 1024 ** 3, 1500, 7]);
  for (const bad of ["", "-1", "2 gigs", "GiB", "1e9"]) expect(() => parseBytes(bad)).toThrow("is not a size");
  expect([formatBytes(0), formatBytes(2 * 1024 ** 3), formatBytes(1536)]).toEqual(["0 B", "2 GiB", "1.5 KiB"]);
});

test("the disk tier is a size, or directories with their sizes", () => {
  const disk = (flags: { disk?: string[] }) => resolveConfig({ flags, environment: {} }).disk;
  expect(disk({})).toEqual([{ directory: undefined, bytes: 20 * 1024 ** 3 }]);
  expect(disk({ disk: ["0"] })).toEqual([{ directory: undefined, bytes: 0 }]);
  expect(disk({ disk: ["/mnt/a:1TiB", "/mnt/b:c:2MiB"] })).toEqual([
    { directory: "/mnt/a", bytes: 1024 ** 4 },
    { directory: "/mnt/b:c", bytes: 2 * 1024 ** 2 },
  ]);
  expect(() => disk({ disk: [":1GiB", "/mnt/a:9", "/mnt/a"] })).toThrow(
    /names no directory[^]*less than[^]*not a size/,
  );
});
