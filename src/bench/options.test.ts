import { expect, test } from "vitest";
import { parseMetrics } from "./metrics-text.ts";
import { parseBenchOptions, runOptions } from "./options.ts";
import { splitWords } from "./words.ts";
import { workloads } from "./workloads.ts";

const url = ["http://127.0.0.1:8080"];

test("defaults, and one server", () => {
  expect(parseBenchOptions("smoke", { own: {}, repeated: { url } })).toMatchObject({
    workload: "smoke",
    rounds: 1,
    seed: 1,
    targets: [{ label: "127.0.0.1:8080", url: "http://127.0.0.1:8080", apiKey: undefined, start: undefined }],
  });
});

test("labels, keys and commands belong to the URL at their place", () => {
  const repeated = {
    url: [...url, "http://127.0.0.1:8081/"],
    label: ["with", "without"],
    "api-key": ["k"],
    "admin-key": ["f", "g"],
    start: ["", "serve --port 8081"],
  };
  expect(parseBenchOptions("smoke", { own: {}, repeated }).targets).toMatchObject([
    { label: "with", url: "http://127.0.0.1:8080", apiKey: "k", adminKey: "f", start: undefined },
    { label: "without", url: "http://127.0.0.1:8081", apiKey: "k", adminKey: "g", start: "serve --port 8081" },
  ]);
});

test("every fault is told in one go", () => {
  const own = { rounds: "none", time: "-1" };
  const repeated = {
    url: ["ftp://x", ...url, ...url],
    start: ["a 'b"],
    "api-key": ["1", "2"],
    "admin-key": ["1", "2"],
  };
  expect(() => parseBenchOptions("smoke", { own, repeated })).toThrow(
    /api-key: give one[^]*admin-key: give one[^]*"ftp:\/\/x" is not[^]*a ' in a 'b is not closed[^]*two servers[^]*--rounds[^]*--time/,
  );
  expect(() => parseBenchOptions("smoke", { own: {}, repeated: {} })).toThrow("--url is required");
  expect(() => parseBenchOptions("smok", { own: {}, repeated: { url } })).toThrow("there are: smoke");
});

test("no workload's option has the name of one that every run has", () => {
  for (const { options } of Object.values(workloads)) {
    expect(Object.keys(options).filter((name) => name in runOptions || name === "help")).toEqual([]);
  }
});

test("a command is split into words without a shell", () => {
  expect(splitWords("  node  dist/main.js serve ")).toEqual(["node", "dist/main.js", "serve"]);
  expect(splitWords(`a 'b c' "d \\"e\\" $F" --g="h i" j\\ k ''`)).toEqual([
    "a",
    "b c",
    'd "e" $F',
    "--g=h i",
    "j k",
    "",
  ]);
  expect(splitWords("")).toEqual([]);
  expect(() => splitWords('a "b')).toThrow("not closed");
  expect(() => splitWords("a\\")).toThrow("backslash");
});

test("metrics are numbers by name and labels", () => {
  const text = [
    "# HELP a_total Things.",
    "a_total 12",
    'b{path="/x y",quote="\\"}"} 1.5e3 1700000000000',
    "c NaN",
    "<html> is no metric",
  ].join("\n");
  expect(parseMetrics(text)).toEqual({ a_total: 12, 'b{path="/x y",quote="\\"}"}': 1500 });
});
