import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { formatBytes, parseBytes } from "./bytes.ts";
import { environmentName, resolveConfig, settingNames } from "./config.ts";
import { isServiceLink } from "./config/environment.ts";
import { RepriseError } from "./errors.ts";

const fromFile = (text: string) => resolveConfig({ flags: {}, environment: {}, filePath: yamlFile(text) });
const fromEnvironment = (environment: Record<string, string>) => resolveConfig({ flags: {}, environment });

function yamlFile(text: string): string {
  const path = join(mkdtempSync(join(tmpdir(), "reprise-config-")), "reprise.yaml");
  writeFileSync(path, text);
  return path;
}

test("a flag wins over the environment, the environment over the file, the file over the default", () => {
  const filePath = yamlFile("port: 1\nsequences: 2\nqueue: 3\n");
  const config = resolveConfig({
    flags: { port: "11" },
    environment: { REPRISE_PORT: "12", REPRISE_SEQUENCES: "22" },
    filePath,
  });
  expect(config).toMatchObject({ port: 11, sequences: 22, queue: 3, host: "127.0.0.1", memory: 2 * 1024 ** 3 });
});

test("every fault of every source is reported in one error", () => {
  const filePath = yamlFile("sequencez: 2\nmemory: lots\n");
  const flags = { port: "http", gpu: "maybe" };
  expect(() => resolveConfig({ flags, environment: { REPRISE_SEQUENCES: "many" }, filePath })).toThrow(
    expect.objectContaining({
      code: "BAD_CONFIG",
      message: expect.stringMatching(
        /sequencez".*did you mean "sequences"[^]*--port: "http"[^]*memory in .*: "lots"[^]*REPRISE_SEQUENCES: "many"[^]*--gpu: "maybe" is none of auto, on, off/,
      ) as unknown,
    }) as RepriseError,
  );
});

test("lists come as repeated flags, as commas in the environment and as lists in the file", () => {
  const apiKey = ["first-key", "second-key"];
  expect(resolveConfig({ flags: { apiKey }, environment: {} }).apiKey).toEqual(apiKey);
  expect(fromEnvironment({ REPRISE_API_KEY: "first-key,second-key" }).apiKey).toEqual(apiKey);
  expect(fromFile("api-key: [first-key, second-key]").apiKey).toEqual(apiKey);
  expect(fromFile("api-key: &keys [first-key, second-key]\nadmin-key: *keys").adminKey).toEqual(apiKey);
});

test("values in the file are the texts that were typed, whatever YAML makes of them elsewhere", () => {
  const { apiKey, model, port, deterministic } = fromFile(
    "api-key: [0012345678, 1e50000000, 0x1f1f1f1f, 2026-11-29]\nmodel: 1_000\nport: 0080\ndeterministic: true\n",
  );
  expect(apiKey).toEqual(["0012345678", "1e50000000", "0x1f1f1f1f", "2026-11-29"]);
  expect({ model, port, deterministic }).toEqual({ model: "1_000", port: 80, deterministic: true });
});

test.each([
  ["api-key:", "api-key has no value"],
  ["api-key: null", "api-key has no value"],
  ["api-key: ~", "api-key has no value"],
  ["cors-origin:\n", "cors-origin has no value"],
  ["host:", "host has no value"],
  ["socket:  # none", "socket has no value"],
  ["api-key: []", "api-key is an empty list"],
  ["api-key:\n  - long-enough\n  -", "api-key has no value"],
  ["api-key: ''", "api-key in .*: a key must have 8"],
  ["api-key: [[long-enough]]", "api-key must be a value or a list of values"],
  ["api-key: {a: long-enough}", "api-key must be a value or a list of values"],
  ["api-key: &a [*a, long-enough]", "api-key must be a value or a list of values"],
  ["api-key: !!binary bG9uZy1lbm91Z2g=", "api-key has a tag"],
  ["model: !env HOME", "model has a tag"],
  ["api-key: *nowhere", "api-key must be a value"],
  ["port: [1, 2]", "port takes one value and no list"],
  ["port: 1\nport: 2", "line 2: Map keys must be unique"],
  ["port: 1\n---\nport: 2", "line 2: .*a second document begins here"],
  ["? [a]\n: 1", "a setting's name must be plain text"],
  ["__proto__: 1", 'no setting is called "__proto__"'],
])("in the file, %j is a fault", (text, fault) => {
  expect(() => fromFile(text)).toThrow(
    expect.objectContaining({ code: "BAD_CONFIG", message: expect.stringMatching(fault) as unknown }) as RepriseError,
  );
});

test("no fault of the file tells what may be a key", () => {
  for (const text of ["api-key: sesame sesame", "api-key: [sesame", 'api-key: "sesame\\q"', "api-key: !sesame sesame"])
    expect(() => fromFile(text)).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining("sesame") as unknown }) as RepriseError,
    );
});

test.each([
  ["REPRISE_API_KEY", "", "a key must have 8"],
  ["REPRISE_API_KEY", "        ", "without spaces"],
  ["REPRISE_API_KEY", "long-enough,", "a key must have 8"],
  ["REPRISE_API_KEY", "long-enough, long-enough", "without spaces"],
  ["REPRISE_ADMIN_KEY", "short", "a key must have 8 to 256 characters; this one has 5"],
  ["REPRISE_ADMIN_KEY", "tab\tin-it-all", "without spaces"],
  ["REPRISE_ADMIN_KEY", "schlüssel-lang", "of ASCII"],
  ["REPRISE_API_KEY_FILE", "", "must not be empty"],
  ["REPRISE_HOST", "", "is no address"],
  ["REPRISE_HOST", "127.0.0.1 ", "is no address"],
  ["REPRISE_SOCKET", " ", "must not be empty"],
  ["REPRISE_SOCKET", "/run/a\nb", "control characters"],
  ["REPRISE_CORS_ORIGIN", "null", "is no origin"],
  ["REPRISE_CORS_ORIGIN", "localhost", "is no origin"],
  ["REPRISE_CORS_ORIGIN", "https://a.example/", 'write "https://a.example"'],
  ["REPRISE_CORS_ORIGIN", "https://A.example", "not as browsers write"],
  ["REPRISE_CORS_ORIGIN", "https://a.example:443", "not as browsers write"],
  ["REPRISE_METRICS", "", "is none of admin, open"],
])("%s=%j is a fault and nothing laxer", (variable, value, fault) => {
  expect(() => fromEnvironment({ [variable]: value })).toThrow(
    expect.objectContaining({ code: "BAD_CONFIG", message: expect.stringContaining(fault) as unknown }) as RepriseError,
  );
});

test("origins are taken as browsers send them", () => {
  const corsOrigin = ["https://a.example", "http://localhost:3000", "chrome-extension://abcdef", "http://[::1]:8080"];
  expect(resolveConfig({ flags: { corsOrigin }, environment: {} }).corsOrigin).toEqual(corsOrigin);
});

test("what Kubernetes says of Services named as we are is no setting, not even REPRISE_PORT", () => {
  const names = ["REPRISE", "REPRISE_CACHE", "REPRISE_METRICS"];
  const links = names.flatMap((name) => [
    [`${name}_SERVICE_HOST`, "10.0.0.1"],
    [`${name}_SERVICE_PORT`, "8080"],
    [`${name}_SERVICE_PORT_HTTP_API`, "8080"],
    [`${name}_PORT`, "tcp://10.0.0.1:8080"],
    [`${name}_PORT_8080_TCP`, "tcp://10.0.0.1:8080"],
    [`${name}_PORT_8080_TCP_PROTO`, "tcp"],
    [`${name}_PORT_8080_TCP_PORT`, "8080"],
    [`${name}_PORT_8080_TCP_ADDR`, "10.0.0.1"],
    [`${name}_PORT_53_UDP`, "udp://10.0.0.1:53"],
  ]);
  const warnings: string[] = [];
  const onWarning = (line: string) => void warnings.push(line);
  const config = resolveConfig({ flags: {}, environment: Object.fromEntries(links), onWarning });
  expect(config).toMatchObject({ port: 8080, metricsPort: undefined });
  expect(warnings).toEqual([]);
  for (const name of settingNames) expect(isServiceLink(environmentName(name), "8080")).toBe(false);
  expect(fromEnvironment({ REPRISE_PORT: "81", REPRISE_METRICS_PORT: "82" })).toMatchObject({
    port: 81,
    metricsPort: 82,
  });
});

test("other variables that begin with REPRISE_ are one warning; an unknown key in the file is a fault", () => {
  const warnings: string[] = [];
  const environment = {
    REPRISE_PORTS: "1",
    REPRISE_COMMIT: "abc",
    REPRISED: "x",
    REPRISE_TEST_DEPTH: "full",
    REPRISE_SEQUENCES: "3",
  };
  expect(resolveConfig({ flags: {}, environment, onWarning: (line) => void warnings.push(line) }).sequences).toBe(3);
  expect(warnings).toEqual([
    'REPRISE_PORTS (did you mean "REPRISE_PORT"?), REPRISE_COMMIT: no such settings, left alone',
  ]);
  const many = Object.fromEntries(Array.from({ length: 500 }, (_, i) => [`REPRISE_\n${i}`, "x"]));
  resolveConfig({ flags: {}, environment: many, onWarning: (line) => void warnings.push(line) });
  expect(warnings[1]).toMatch(/^REPRISE_\?0[^\n]* and 480 more: no such settings, left alone$/);
  expect(() => fromFile("commit: abc")).toThrow('no setting is called "commit"');
});

test("a configuration file that is missing, broken or no map is a fault", () => {
  for (const filePath of ["/nonexistent.yaml", yamlFile("- a\n- b"), yamlFile("a: [")]) {
    expect(() => resolveConfig({ flags: {}, environment: {}, filePath })).toThrow(RepriseError);
  }
  expect(fromFile("").sequences).toBe(4);
  expect(fromFile("# nothing yet\n").sequences).toBe(4);
});

test("a configuration file that is endless, a pipe, a folder or no text is a fault at once", () => {
  const folder = mkdtempSync(join(tmpdir(), "reprise-config-"));
  const pipe = join(folder, "pipe");
  execFileSync("mkfifo", [pipe]);
  mkdirSync(join(folder, "folder"));
  writeFileSync(join(folder, "binary"), Buffer.from([0x61, 0x3a, 0x20, 0xff]));
  for (const [filePath, fault] of [
    ["/dev/zero", "not a regular file"],
    [pipe, "not a regular file"],
    [join(folder, "folder"), "not a regular file"],
    [join(folder, "binary"), "not UTF-8"],
    [yamlFile(`model: ${"x".repeat(1_100_000)}`), "larger than 1048576 bytes"],
  ] as const)
    expect(() => resolveConfig({ flags: {}, environment: {}, filePath })).toThrow(fault);
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

test("~/ is the home directory in a flag, in the environment and in the file; of ~ nothing else is known", () => {
  const filePath = yamlFile("socket: ~/run/cache.sock\ndisk: ['1GiB', '~/fast:2GiB']\n");
  const config = resolveConfig({ flags: { dataDir: "~/data" }, environment: { REPRISE_POOL_DIR: "~" }, filePath });
  const [home, gibibyte] = [homedir(), 1024 ** 3];
  expect(config).toMatchObject({
    dataDir: join(home, "data"),
    poolDir: join(home, "."),
    socket: join(home, "run/cache.sock"),
    disk: [
      { directory: undefined, bytes: gibibyte },
      { directory: join(home, "fast"), bytes: 2 * gibibyte },
    ],
  });
  const other = () => resolveConfig({ flags: { dataDir: "~ada/data" }, environment: {} });
  expect(other).toThrow('"~ada/data": of ~ only ~/ is known, your own home; write ./~ada/data');
  expect(resolveConfig({ flags: { dataDir: "./~ada/data" }, environment: {} }).dataDir).toBe("./~ada/data");
});
