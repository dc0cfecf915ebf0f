import { expect, test } from "vitest";
import { parseBenchOptions } from "./options.ts";
import { loadName, parseLoads, underLoad } from "./sweep.ts";
import { ask, scale } from "./workloads/fake-runner.ts";
import { workloads } from "./workloads.ts";

const given = (name: string, options: Readonly<Record<string, string>> = {}) => ({
  definition: workloads[name]!, // named in each test
  options,
});
const url = ["http://127.0.0.1:8080"];

test("loads are lists of numbers, of one kind, each once", () => {
  const faults: string[] = [];
  expect(parseLoads({ qps: "0.5,1,2" }, faults).map(loadName)).toEqual(["0.5/s", "1/s", "2/s"]);
  expect(parseLoads({ concurrency: "1,4" }, faults).map(loadName)).toEqual(["1 at a time", "4 at a time"]);
  expect(faults).toEqual([]);
  for (const wrong of [
    {},
    { qps: "1", concurrency: "1" },
    { qps: "1,," },
    { concurrency: "1.5" },
    { qps: "1,1" },
    { qps: "0" },
  ]) {
    const before = faults.length;
    parseLoads(wrong, faults);
    expect(faults.length).toBe(before + 1);
  }
});

test("requests of a list arrive as a Poisson process of the rate, all in the step's group", () => {
  const options = { requests: "2000", "document-length": "20", k: "1" };
  const asked = ask(underLoad({ kind: "qps", value: 4 }, given("rag", options), scale));
  expect(new Set(asked.map(({ request }) => request.group))).toEqual(new Set(["4/s"]));
  const starts = asked.map(({ actor }) => actor.startMs);
  expect(starts.at(-1)! / 2000 / 250).toBeCloseTo(1, 1); // not empty
  expect(starts).not.toEqual(starts.map((_, index) => index * 250));
});

test("a workload with a rate of its own keeps its schedule at the step's rate", () => {
  const options = { "num-users": "4", "num-rounds": "3", "user-history-prompt": "10", qps: "9" };
  const swept = ask(underLoad({ kind: "qps", value: 2 }, given("multi-round-qa", options), scale), { actors: 12 });
  const own = ask(workloads["multi-round-qa"]!.create({ ...options, qps: "2" }, scale), { actors: 12 }); // it is known
  expect(swept.map(({ dueMs }) => dueMs)).toEqual(own.map(({ dueMs }) => dueMs));
});

test("a closed loop has so many at work, and needs as many", () => {
  const workload = underLoad({ kind: "concurrency", value: 3 }, given("agent", { agents: "3" }), scale);
  expect(workload.concurrency).toBe(3);
  expect(() => underLoad({ kind: "concurrency", value: 5 }, given("agent", { agents: "3" }), scale)).toThrow(
    "--concurrency 5: agent has only 3",
  );
});

test("the options of the workload are taken, others are refused, and the sweep's own are not the workload's", () => {
  const own = { of: "rag", concurrency: "1,2", k: "3" };
  const options = parseBenchOptions("sweep", { own, repeated: { url } });
  expect(options).toMatchObject({ bench: "sweep", workload: "rag", loads: [{ value: 1 }, { value: 2 }] });
  expect(options.workloadOptions).toMatchObject({ k: "3", pool: "50" });
  expect(options.workloadOptions).not.toHaveProperty("concurrency");
  expect(() => parseBenchOptions("sweep", { own: { ...own, turns: "3" }, repeated: { url } })).toThrow(
    "--turns is no option of rag",
  );
  expect(() => parseBenchOptions("sweep", { own: { of: "sweep", qps: "1" }, repeated: { url } })).toThrow(
    'no workload is called "sweep"',
  );
});
