import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test, vi } from "vitest";
import { sampleResult } from "../../test/support/bench-result.ts";
import { compareFiles } from "./bench-compare.ts";

const none = { max: [], min: [] };

test("the table has a line per target, group and metric; a ratio above its limit is named and fails", async () => {
  const { directory, written } = scene();
  const [a, b] = [join(directory, "a.json"), join(directory, "b.json")];
  writeFileSync(a, JSON.stringify(sampleResult({ turns: 1 })));
  writeFileSync(b, JSON.stringify(sampleResult({ turns: 1, slowness: 1.5 })));

  expect(await compareFiles(a, b, none)).toBe(0);
  expect(written.out).toMatch(
    /^reprise +round 1 +ttft median +[\d.]+ ms +[\d.]+ ms +1\.500 +[\d.]+ – [\d.]+ +2\d, 2\d$/m,
  );
  expect(written.error).toBe("");

  expect(await compareFiles(a, b, { ...none, max: ["ttft=1.4", "itl=2"] })).toBe(1);
  expect(written.error).toBe(
    "reprise, round 1: ttft is 1.500 times A's, above the limit of 1.4\n" +
      "llama-server, round 1: ttft is 1.500 times A's, above the limit of 1.4\n",
  );
});

test("a rate that fell below its limit is named and fails", async () => {
  const { directory, written } = scene();
  const [a, b] = [join(directory, "a.json"), join(directory, "b.json")];
  writeFileSync(a, JSON.stringify(sampleResult({ turns: 1 })));
  writeFileSync(b, JSON.stringify(sampleResult({ turns: 1, slowness: 1.5 })));

  expect(await compareFiles(a, b, { ...none, min: ["tokens/s=0.5", "ttft=1"] })).toBe(0);
  expect(await compareFiles(a, b, { ...none, min: ["tokens/s=0.9"] })).toBe(1);
  expect(written.error).toMatch(/^reprise, round 1: tokens\/s is 0\.6\d\d times A's, below the limit of 0\.9$/m);
});

test("a limit does not pass where B answered nothing that A answered", async () => {
  const { directory, written } = scene();
  const [a, b] = [join(directory, "a.json"), join(directory, "b.json")];
  const result = sampleResult({ turns: 2 });
  const samples = result.samples.map((sample) => (sample.group === "round 2" ? { ...sample, outcome: "cut" } : sample));
  writeFileSync(a, JSON.stringify(result));
  writeFileSync(b, JSON.stringify({ ...result, samples }));

  expect(await compareFiles(a, b, { ...none, max: ["ttft=2"] })).toBe(1);
  expect(written.error).toContain("reprise, round 2: ttft has a limit, and B has no value of it\n");
  expect(await compareFiles(a, b, { ...none, max: ["reused=1"] })).toBe(0);
});

test("a file that is missing or no result is refused with its path", async () => {
  const { directory } = scene();
  const [missing, other] = [join(directory, "missing.json"), join(directory, "other.json")];
  writeFileSync(other, "{}");
  await expect(compareFiles(missing, other, none)).rejects.toMatchObject({
    code: "BAD_REQUEST",
    message: `${missing} cannot be read`,
  });
  await expect(compareFiles(other, other, none)).rejects.toThrow(`${other} is not a benchmark result`);
});

function scene(): { readonly directory: string; readonly written: { out: string; error: string } } {
  const directory = mkdtempSync(join(tmpdir(), "reprise-compare-"));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const written = { out: "", error: "" };
  const streams = [
    vi.spyOn(process.stdout, "write").mockImplementation((text) => Boolean((written.out += String(text)))),
    vi.spyOn(process.stderr, "write").mockImplementation((text) => Boolean((written.error += String(text)))),
  ];
  onTestFinished(() => streams.forEach((stream) => stream.mockRestore()));
  return { directory, written };
}
