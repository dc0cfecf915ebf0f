import { expect, test } from "vitest";
import { coldWarm } from "./cold-warm.ts";
import { ask, scale, sharedPrefix } from "./fake-runner.ts";

test("each prompt is sent twice, the second time as the first, and no two prompts are alike", () => {
  const requests = ask(coldWarm.create({ prompts: "5", tokens: "1000" }, scale));
  expect(requests.map(({ request }) => request.group)).toEqual(
    Array.from({ length: 5 }, () => ["cold", "warm"]).flat(),
  );
  for (let pair = 0; pair < 10; pair += 2) {
    const [cold, warm, next] = requests.slice(pair, pair + 3);
    expect(warm?.request.body).toEqual(cold?.request.body);
    expect(warm?.actor).toBe(cold?.actor);
    expect(cold?.prompt.indexOf("\n\nQuestion: ")).toBe(4000);
    if (next) expect(sharedPrefix(cold?.prompt ?? "", next.prompt)).toBeLessThan(40);
  }
});

test("the text has its length at any number of characters a token", () => {
  const [first] = ask(coldWarm.create({ tokens: "1000" }, { ...scale, charactersPerToken: 5.33 }), { actors: 1 });
  expect(first?.prompt.indexOf("\n\nQuestion: ")).toBe(5330);
});
