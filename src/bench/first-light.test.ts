import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { startFakeServer, wholeAnswer } from "./fake-server.ts";
import { realClock } from "./clock.ts";
import { firstLightLines, runFirstLight } from "./first-light.ts";
import { parseBenchOptions } from "./options.ts";
import { parseResult } from "./parse-result.ts";
import { runBench } from "./run-bench.ts";
import { Target } from "./target.ts";

const tickingServer = fileURLToPath(new URL("fake-ticking-server.mjs", import.meta.url));
const running = { command: "reprise bench first-light", signal: new AbortController().signal };
const short = { tokens: "50", "other-tokens": "20", "checked-share": "0" };

test("each round: uncached and cold by turns, warm, after others, and after a restart; one result like any other", async () => {
  const port = await freePort();
  const repeated = { url: [`http://127.0.0.1:${port}`], start: [`'${process.execPath}' '${tickingServer}' ${port}`] };
  const options = parseBenchOptions("first-light", { own: { ...short, rounds: "2" }, repeated });
  const result = await runBench(options, running);

  const rest = ["warm", "after others", "after kill -9", "restarted"];
  const groups = (round: number) => result.samples.filter((each) => each.round === round).map(({ group }) => group);
  expect(groups(0)).toEqual(["no cache", "cold", ...rest]);
  expect(groups(1)).toEqual(["cold", "no cache", ...rest]);
  expect(result.samples.every(({ outcome }) => outcome === "ok")).toBe(true);
  const [target] = result.targets;
  expect(target?.metricsAfter["pid"]).not.toBe(target?.metricsBefore["pid"]); // it is another process
  expect(target?.residentBytes).toBeGreaterThan(10 * 2 ** 20);
  expect(parseResult(JSON.stringify(result), "result").samples).toHaveLength(12);
  expect(firstLightLines(result)[0]).toMatch(
    /cold over warm [\d.]+, over after others .*, over restarted .*\(medians\)$/,
  );
}, 60_000);

test("without --others that arm is left out; a server that must be restarted must be started", () => {
  const parse = (repeated: Record<string, string[]>, own = {}) => parseBenchOptions("first-light", { own, repeated });
  expect(parse({}).targets).toEqual([]);
  expect(() => parse({ url: ["http://127.0.0.1:1"] })).toThrow("give --start for http://127.0.0.1:1");
  expect(() => parse({}, { tokens: "x" })).toThrow("--tokens wants a whole number");
});

test("the arm without a cache says so to Reprise and to llama-server, and asks about another text", async () => {
  const bodies: Record<string, unknown>[] = [];
  await using server = await startFakeServer(({ path, body }, response) => {
    if (path === "/v1/models") return void response.end('{"data":[{"id":"m"}]}');
    if (path !== "/v1/chat/completions") return void response.writeHead(404).end();
    bodies.push(JSON.parse(body) as Record<string, unknown>);
    return void response.end(wholeAnswer(["Yes"]));
  });
  const stop = new AbortController();
  await using target = await Target.open(
    { label: "one", url: server.url, apiKey: undefined, adminKey: undefined, start: undefined, stallMs: 1000 },
    running.signal,
  );
  const settings = { options: { ...short, others: "0" }, rounds: 1, seed: 1, originMs: 0 };
  const samples = await runFirstLight({
    ...settings,
    targets: [target],
    scale: { charactersPerToken: 4 },
    clock: realClock,
    timeLimitMs: Infinity,
    signal: stop.signal,
    warmUp: () => Promise.resolve(),
    onTurn: () => {},
    onSample: ({ group }) => group === "warm" && stop.abort(), // before the restart, which this server cannot
  });
  expect(samples.map(({ group }) => group)).toEqual(["no cache", "cold", "warm"]);
  const [uncached, cold, warm] = bodies;
  expect(uncached).toMatchObject({ reprise: { read: false, save: false }, cache_prompt: false });
  expect(cold).not.toHaveProperty("reprise");
  expect(cold).not.toHaveProperty("cache_prompt");
  expect(warm).toEqual(cold);
  expect(uncached?.["messages"]).not.toEqual(cold?.["messages"]);
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo; // it listens on TCP
  await new Promise((resolve) => server.close(resolve));
  return port;
}
