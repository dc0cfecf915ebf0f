import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { textContent } from "../../../chat/content.ts";
import { EngineBench, ask, until } from "../../../../test/support/engine.ts";

const path = fileURLToPath(new URL("../../../../models/reprise-22m-q8_0.gguf", import.meta.url));
const notes = Array.from(
  { length: 40 },
  (_, index) => `Note ${index}: the key of room ${index} is ${(index * 37) % 100}.`,
);
const question = (room: number) => ({
  messages: [{ role: "user", content: textContent(`${notes.join("\n")}\nWhat is the key of room ${room}?`) }],
});

test("the shipped model answers a second question about the same notes from the cache, as if it read them anew", async () => {
  await using bench = new EngineBench({ path });
  const { cache, socketPath } = await bench.openCache();
  const options = { contextTokens: 4096, deterministic: true, socketPath };
  const one = bench.start(options);
  expect(await one.ready).toMatchObject({ name: "reprise-22m-q8_0", vocabularySize: 8192, reuse: true });
  await until(() => cache.stats().sessions === 1);
  const first = await ask(one, question(3), { ignoreEnd: false, maxTokens: 24 });
  const whole = Math.floor(first.report.promptTokens / 64);
  await until(() => one.stats().savedChunks === whole);

  const two = bench.start(options);
  await two.ready;
  await until(() => cache.stats().sessions === 2);
  const warm = await ask(two, question(7), { ignoreEnd: false, maxTokens: 24 });
  expect(warm.report.reused.memory).toBeGreaterThan(0.8 * warm.report.promptTokens);
  const cold = await ask(two, question(7), {
    ignoreEnd: false,
    maxTokens: 24,
    cache: { salt: "", read: false, save: false },
  });
  expect(cold.report.reused).toEqual({});
  expect(warm.tokens).toEqual(cold.tokens);
  expect(warm.text).not.toContain("<|");
});
