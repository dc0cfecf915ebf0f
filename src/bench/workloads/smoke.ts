/** Ten short requests, one after another: does a server answer at all, and is a run set up right? */
import type { BenchRequest } from "./workload.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import { requestList } from "./request-list.ts";

const count = 10;
const answerTokens = 16;

export const smoke: WorkloadDefinition = {
  summary: "ten short requests, one after another",
  options: {},
  create(_options, { seed }) {
    const make = (index: number) => (): BenchRequest => ({
      id: `request ${index + 1}`,
      group: "short",
      path: "/v1/chat/completions",
      body: {
        messages: [
          { role: "user", content: `Run ${seed}, question ${index + 1}: name a town, and say one thing about it.` },
        ],
        max_tokens: answerTokens,
        temperature: 0,
      },
    });
    const requests = () => Array.from({ length: count }, (_, index) => ({ startMs: 0, make: make(index) }));
    return requestList("smoke", requests, 1);
  },
};
