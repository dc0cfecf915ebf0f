/** Clients that leave, or ask for what cannot be: others lose nothing by it. */
import { expect, test } from "vitest";
import { EngineBench, ask, request, slowModel, until } from "../../../../test/support/engine.ts";
import { someTokens } from "../../../../test/support/tokens.ts";
import type { GenerateRequest } from "../../../engine.ts";
import type { LlamaEngine } from "./engine.ts";

function of(tenant: string): Partial<GenerateRequest> {
  return { maxTokens: 1, cache: { salt: tenant, tenant, read: false, save: false } };
}

/** Asks, and leaves before there is an answer. */
async function leave(engine: LlamaEngine, asked: GenerateRequest, afterMs: number): Promise<void> {
  const left = new AbortController();
  const timer = setTimeout(() => left.abort(), afterMs);
  try {
    for await (const _ of engine.generate(asked, left.signal)) continue;
  } catch {
    // as it is to be
  } finally {
    clearTimeout(timer);
  }
}

test("clients that leave while their prompts are read keep nobody else's prompt from being read", async () => {
  await using bench = new EngineBench(slowModel);
  const engine = bench.start({ sequences: 4, contextTokens: 8192 });
  await engine.ready;
  const read = new AbortController();
  let left = 0;
  const leaving = Array.from({ length: 8 }, async (_, index) => {
    for (; !read.signal.aborted; left += 1)
      await leave(engine, request(someTokens(4500, 100 + left), of(`leaves ${index}`)), 400);
  });
  const { report } = await ask(engine, someTokens(3000, 7), of("stays"));
  read.abort();
  await Promise.all(leaving);
  expect(report.computedTokens).toBe(3000);
  expect(left).toBeGreaterThan(8);
});

test("a request that is refused anyway, or whose client has left, takes nobody's place in a full queue", async () => {
  await using bench = new EngineBench();
  const engine = bench.start({ sequences: 1 }, { maxWaiting: 4 });
  await engine.ready;
  const waiting = Array.from({ length: 5 }, (_, index) =>
    ask(engine, someTokens(30, index), { ...of("many"), maxTokens: 200 }),
  );
  await until(() => engine.stats().waitingRequests === 4);
  const wrong: [GenerateRequest["prompt"], Partial<GenerateRequest>, string][] = [
    [someTokens(30, 9), { maxTokens: 0 }, "BAD_REQUEST"],
    [someTokens(2000, 9), {}, "PROMPT_TOO_LONG"],
    ["word ".repeat(100_000), {}, "PROMPT_TOO_LONG"],
  ];
  for (const [prompt, change, code] of wrong)
    await expect(ask(engine, prompt, { ...of("one"), ...change })).rejects.toMatchObject({ code });
  const gone = engine.generate(request(someTokens(30, 9), of("one")), AbortSignal.abort());
  await expect(gone.next()).rejects.toMatchObject({ code: "CANCELLED" });
  expect((await Promise.all(waiting)).map(({ tokens }) => tokens.length)).toEqual([200, 200, 200, 200, 200]);
});
