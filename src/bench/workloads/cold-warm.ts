/**
 * Each prompt sent twice, the second time when the first is answered: what it costs to read a text, and to read it
 * again. The smallest workload that shows a cache at work, and that its answers stay the same.
 */
import { ask } from "../notes/notes.ts";
import { Random, seedOf } from "../notes/random.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import type { Actor, BenchRequest, TextScale } from "./workload.ts";
import { chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, OPEN_QUESTION, passage } from "./passage.ts";

export const coldWarm: WorkloadDefinition = {
  summary: "each prompt sent twice: cold, then warm",
  options: {
    prompts: { value: "N", help: "different prompts", default: "10" },
    tokens: { value: "TOKENS", help: "length of the text in each prompt", default: "4000" },
    "output-len": { value: "TOKENS", help: "length of each answer that is not checked", default: "100" },
    concurrency: { value: "N", help: "prompts at a time", default: "1" },
    "checked-share": checkedShareOption("prompts", "1"),
  },
  create(given, scale) {
    const options = new OptionReader(coldWarm.options, given);
    const settings: Settings = {
      prompts: options.whole("prompts"),
      tokens: options.whole("tokens"),
      outputTokens: options.whole("output-len"),
      checkedShare: options.share("checked-share"),
    };
    const concurrency = options.whole("concurrency");
    options.done();
    return { name: "cold-warm", concurrency, actors: () => pairs(settings, scale) };
  },
};

interface Settings {
  readonly prompts: number;
  readonly tokens: number;
  readonly outputTokens: number;
  readonly checkedShare: number;
}

function* pairs(settings: Settings, scale: TextScale & { seed: number }): Generator<Actor> {
  for (let prompt = 1; prompt <= settings.prompts; prompt++) {
    const groups = ["cold", "warm"];
    yield {
      startMs: 0,
      gapMs: 0,
      next() {
        const group = groups.shift();
        return group === undefined ? undefined : request(prompt, group, settings, scale);
      },
    };
  }
}

function request(
  prompt: number,
  group: string,
  { tokens, outputTokens, checkedShare }: Settings,
  scale: TextScale & { seed: number },
): BenchRequest {
  const seed = seedOf(scale.seed, `prompt ${prompt}`);
  const { text, questions } = passage(charactersOf(tokens, scale), seed);
  const [question] = new Random(seed).some(questions, 1);
  return chatRequest({
    id: `prompt ${prompt} ${group}`,
    group,
    messages: [{ role: "user", content: ask(text, question?.question ?? OPEN_QUESTION) }],
    outputTokens,
    expected: isChecked(prompt - 1, checkedShare) ? question?.answer : undefined,
  });
}
