/** Ten short requests, one after another: does a server answer at all, and is a run set up right? */
import type { Actor } from "../workload.ts";
import type { WorkloadDefinition } from "../workload-definition.ts";

const requests = 10;
const answerTokens = 16;

export const smoke: WorkloadDefinition = {
  summary: "ten short requests, one after another",
  options: {},
  create(_options, { seed }) {
    const actors = Array.from({ length: requests }, (_, index): Actor => {
      const content = `Run ${seed}, question ${index + 1}: name a town, and say one thing about it.`;
      let asked = false;
      return {
        startMs: 0,
        gapMs: 0,
        next() {
          if (asked) return undefined;
          asked = true;
          return {
            id: `request ${index + 1}`,
            group: "short",
            path: "/v1/chat/completions",
            body: { messages: [{ role: "user", content }], max_tokens: answerTokens, temperature: 0 },
          };
        },
      };
    });
    return { name: "smoke", actors: () => actors, concurrency: 1 };
  },
};
