import { existsSync, readdirSync, readFileSync } from "node:fs";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { type Script, startFakeServer, wholeAnswer } from "./fake-server.ts";
import { parseBenchOptions } from "./options.ts";
import { runBench } from "./run-bench.ts";
import { Target, type TargetOptions } from "./target.ts";

const tickingServer = fileURLToPath(new URL("fake-ticking-server.mjs", import.meta.url));
const running = new AbortController().signal;

function targetOptions(url: string, change: Partial<TargetOptions> = {}): TargetOptions {
  return { label: "fake", url, apiKey: undefined, adminKey: undefined, start: undefined, stallMs: 5000, ...change };
}

/** Answers by path; 404 for what is not there. */
function byPath(answers: Readonly<Record<string, (body: string) => string>>): Script {
  return ({ path, body }, response) => {
    const answer = answers[path];
    if (answer === undefined) response.writeHead(404).end("{}");
    else response.end(answer(body));
  };
}

const models = { "/v1/models": () => '{"data":[{"id":"small"},{"id":"default"}]}' };

async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as AddressInfo; // it listens on TCP
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function processesWith(word: string): string[] {
  return readdirSync("/proc").filter((name) => {
    const path = `/proc/${name}/cmdline`;
    return /^\d+$/.test(name) && existsSync(path) && readFileSync(path, "utf8").includes(word);
  });
}

test("the model's name, the scale by /tokenize, the figures before and after", async () => {
  let count = 0;
  await using server = await startFakeServer(
    byPath({
      ...models,
      "/tokenize": (body) => {
        const { content } = JSON.parse(body) as { content: string };
        return JSON.stringify({ count: content.length / 5 });
      },
      "/metrics": () => `asked_total ${(count += 1)}\n`,
    }),
  );
  await using target = await Target.open(targetOptions(server.url), running);
  await target.beginMeasuring();
  expect(await target.facts()).toEqual({
    label: "fake",
    url: server.url,
    model: "small",
    charactersPerToken: 5,
    metricsBefore: { asked_total: 1 },
    metricsAfter: { asked_total: 2 },
  });
});

test("without /tokenize the scale is a completion's usage; without that it is 4, and says so", async () => {
  await using telling = await startFakeServer(
    byPath({
      ...models,
      "/v1/completions": (body) => {
        const { prompt } = JSON.parse(body) as { prompt: string };
        return JSON.stringify({ usage: { prompt_tokens: prompt.length / 8 } });
      },
    }),
  );
  await using first = await Target.open(targetOptions(telling.url), running);
  expect(first.scale).toEqual({ charactersPerToken: 8, source: "the usage of one completion" });

  await using silent = await startFakeServer(byPath(models));
  await using second = await Target.open(targetOptions(silent.url), running);
  expect(second.scale.charactersPerToken).toBe(4);
  expect(second.scale.source).toContain("taken to be 4");
});

test("a request carries the key, the model, stream and usage", async () => {
  let asked: { body: string; key: string | undefined } | undefined;
  await using server = await startFakeServer(({ path, body }, response, request) => {
    if (path === "/v1/chat/completions") {
      asked = { body, key: request.headers.authorization };
      response.end(wholeAnswer(["Yes"]));
    } else byPath(models)({ path, body }, response, request);
  });
  await using target = await Target.open(targetOptions(server.url, { apiKey: "secret" }), running);
  const answer = await target.prepare({ id: "1", group: "g", path: "/v1/chat/completions", body: { messages: [] } })(
    running,
  );
  expect(answer.outcome).toBe("ok");
  expect(asked?.key).toBe("Bearer secret");
  expect(JSON.parse(asked?.body ?? "")).toEqual({
    messages: [],
    model: "small",
    stream: true,
    stream_options: { include_usage: true },
  });
});

test("figures are asked for with the admin key where there is one, answers never", async () => {
  const asked: string[] = [];
  await using server = await startFakeServer(({ path, body }, response, request) => {
    asked.push(`${path} ${request.headers.authorization}`);
    byPath({ ...models, "/metrics": () => "requests_total 3\n" })({ path, body }, response, request);
  });
  const figuresOf = async (keys: Partial<TargetOptions>) => {
    await using target = await Target.open(targetOptions(server.url, keys), running);
    await target.beginMeasuring();
    await target.saved(running);
    return (await target.facts()).metricsBefore;
  };
  expect(await figuresOf({ apiKey: "a", adminKey: "b" })).toEqual({ requests_total: 3 });
  const forFigures = asked.filter((line) => line.endsWith(" Bearer b")).map((line) => line.split(" ")[0]);
  expect(new Set(forFigures)).toEqual(new Set(["/metrics", "/cache/stats"]));
  expect(asked).toContain("/v1/models Bearer a");
  asked.length = 0;
  await figuresOf({ apiKey: "a" });
  expect(new Set(asked.map((line) => line.split(" Bearer ")[1]))).toEqual(new Set(["a"]));
});

test("nobody there, or something else: an error that says what to look at", async () => {
  const url = `http://127.0.0.1:${await freePort()}`;
  await expect(Target.open(targetOptions(url), running)).rejects.toMatchObject({ code: "TARGET_UNAVAILABLE" });
});

test("--start: a server is started, waited for, measured, and ended with its group", async () => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  const start = `'${process.execPath}' '${tickingServer}' ${port}`;
  const result = await runBench(
    {
      bench: "smoke",
      workload: "smoke",
      loads: [],
      workloadOptions: {},
      targets: [targetOptions(url, { start })],
      rounds: 2,
      timeSeconds: 20,
      seed: 1,
      warmUp: 1,
      stallSeconds: 5,
      jsonPath: undefined,
      csvPath: undefined,
      reportPath: undefined,
    },
    { command: "reprise bench smoke", signal: running },
  );
  expect(result.samples).toHaveLength(20);
  expect(result.samples.every(({ outcome, sentMs, dueMs }) => outcome === "ok" && sentMs >= dueMs)).toBe(true);
  expect(result.warmUp).toBe("one request of 16 answer tokens to every server, not counted");
  expect(result.options).toMatchObject({ rounds: 2, "characters-per-token": 4 });
  expect(result.targets[0]).toMatchObject({ model: "ticks" });
  expect(result.targets[0]?.residentBytes).toBeGreaterThan(10 * 2 ** 20);
  expect(result.targets[0]?.cpuSeconds).toBeGreaterThanOrEqual(0);
  expect(processesWith(`${tickingServer}\0${port}`)).toEqual([]);
  expect(JSON.parse(JSON.stringify(result))).toEqual(result);
}, 60_000);

test("a run that is ended early has what was measured until then, figures included", async () => {
  await using server = await startFakeServer(
    byPath({ ...models, "/v1/chat/completions": () => wholeAnswer(["Yes"]), "/metrics": () => "asked_total 1\n" }),
  );
  const stop = new AbortController();
  const options = parseBenchOptions("smoke", { own: {}, repeated: { url: [server.url] } });
  const result = await runBench(options, {
    command: "reprise bench smoke",
    signal: stop.signal,
    onSample: ({ id }) => id === "request 3" && stop.abort(),
  });
  expect(result.samples.map(({ id }) => id)).toEqual(["request 1", "request 2", "request 3"]);
  expect(result.targets[0]?.metricsAfter).toEqual({ asked_total: 1 });
});

test("--start: what cannot be started, or ends at once, is told with its last words", async () => {
  const url = `http://127.0.0.1:${await freePort()}`;
  await expect(Target.open(targetOptions(url, { start: "/no/such/program" }), running)).rejects.toMatchObject({
    code: "TARGET_UNAVAILABLE",
  });
  const start = `'${process.execPath}' -e "console.error('no weights here'); process.exit(3)"`;
  await expect(Target.open(targetOptions(url, { start }), running)).rejects.toThrow(
    /ended \(3\) before it was ready; it said:\nno weights here/,
  );
});

test("--start where somebody answers already is refused: the wrong server would be measured", async () => {
  await using server = await startFakeServer(byPath(models));
  await expect(Target.open(targetOptions(server.url, { start: "true" }), running)).rejects.toThrow(/answered already/);
});
