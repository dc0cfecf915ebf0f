import { expect, test } from "vitest";
import { createLog } from "../../log.ts";
import { Refusals } from "./refusals.ts";

test("each refusal counts, and a minute of them is one line", () => {
  const lines: string[] = [];
  let now = 5;
  const refusals = new Refusals(createLog({ level: "warn", write: (line) => lines.push(line) }), () => now);
  for (let i = 0; i < 1000; i += 1) {
    refusals.note("192.0.2.7", "the token is not this host's");
    now += 90; // a minute and a half together
  }
  expect(refusals.count).toBe(1000);
  expect(lines).toHaveLength(2);
  expect(lines[0]).toMatch(/a host at 192\.0\.2\.7 was refused: the token is not this host's\n$/);
  expect(lines[1]).toMatch(/\(666 more were refused since the last such line\)\n$/);
});
