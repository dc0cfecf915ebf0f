/** What the log says of answers, whole and cut. */
import { expect, test } from "vitest";
import { createLog } from "../../log.ts";
import { fakeApp, fakeServer, post } from "./fake-server.ts";

function told() {
  const lines: string[] = [];
  const log = createLog({ level: "info", write: (line) => void lines.push(line.slice(9).trimEnd()) });
  return { lines, log };
}

const prompt = { prompt: "one two three" };

test.each([false, true])("one line for an answer, when it has ended (stream: %s)", async (stream) => {
  const { lines, log } = told();
  const { app } = fakeApp({ log });
  await (await post(app, "/v1/completions", { ...prompt, stream })).text();
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatch(/^info +(http: )?3 tokens: 3 computed; first token [\d,]+ ms; \d+ out in \d+\.\d s$/);
});

test("nothing is said of a request that was refused", async () => {
  const { lines, log } = told();
  const { app } = fakeApp({ log });
  expect((await post(app, "/v1/completions", { ...prompt, temperature: "hot" })).status).toBe(400);
  expect(lines).toEqual([]);
});

test("who leaves in the middle is told with what there was until then", async () => {
  const { lines, log } = told();
  await using server = await fakeServer({
    log,
    fake: { script: () => ({ pieces: Array.from({ length: 100 }, () => "a "), pieceMs: 30 }) },
  });
  const gone = new AbortController();
  const answer = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...prompt, stream: true }),
    signal: gone.signal,
  });
  await answer.body!.getReader().read();
  gone.abort();
  await expect.poll(() => lines.at(-1)).toMatch(/out in \d+\.\d s, then the client left$/);
});
