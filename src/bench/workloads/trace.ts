/**
 * A recorded trace, replayed: every request at its time, with its length, and with the same text where the trace has the
 * same block.
 *
 * Requests are grouped by how much of their prompt an endless cache of prefixes could reuse. Times count from the
 * trace's first line, so leaving requests out moves no other.
 */
import { readFileSync } from "node:fs";
import { describe, RepriseError } from "../../errors.ts";
import { Random, seedOf } from "../notes/random.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import type { BenchRequest, TextScale } from "./workload.ts";
import { chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { BLOCK_TOKENS, parseTrace, type TraceRequest } from "./mooncake-trace.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, type Passage, passage, type PassageQuestion, questionAmong } from "./passage.ts";
import { requestList, type TimedRequest } from "./request-list.ts";

export const trace: WorkloadDefinition = {
  summary: "a recorded trace in Mooncake's format, replayed at its times",
  options: {
    trace: { value: "FILE", help: "JSON lines: timestamp, input_length, output_length, hash_ids", default: "" },
    speed: { value: "FACTOR", help: "2 replays twice as fast", default: "1" },
    "max-input-length": { value: "TOKENS", help: "leave out longer prompts", default: "none" },
    "max-requests": { value: "N", help: "stop after that many", default: "none" },
    "checked-share": checkedShareOption("requests", "0.1"),
  },
  create(given, scale) {
    const options = new OptionReader(trace.options, given);
    const file = options.text("trace");
    if (file === "") options.fault("trace", "wants the file to replay", undefined);
    const settings: Settings = {
      speed: options.above0("speed"),
      maxInputTokens: options.wholeOrNone("max-input-length"),
      maxRequests: options.wholeOrNone("max-requests"),
      checkedShare: options.share("checked-share"),
    };
    options.done();
    const recorded = parseTrace(read(file), file);
    return requestList("trace", () => requests(recorded, settings, scale), undefined);
  },
};

interface Settings {
  readonly speed: number;
  readonly maxInputTokens: number;
  readonly maxRequests: number;
  readonly checkedShare: number;
}

function* requests(
  recorded: readonly TraceRequest[],
  { speed, maxInputTokens, maxRequests, checkedShare }: Settings,
  scale: TextScale & { seed: number },
): Generator<TimedRequest> {
  const firstMs = recorded[0]?.timestampMs ?? 0;
  const seen = new Set<number>();
  let number = 0;
  for (const each of recorded) {
    if (number >= maxRequests) return;
    if (each.inputTokens > maxInputTokens) continue;
    const group = groupOf(each.hashIds, seen);
    const checked = isChecked(number, checkedShare);
    number++;
    const id = `request ${number}`;
    yield {
      startMs: (each.timestampMs - firstMs) / speed,
      make: () => request(each, { id, group, checked }, scale),
    };
  }
}

/** How much of the prompt stood at the beginning of earlier ones. Adds its blocks to `seen`. */
function groupOf(hashIds: readonly number[], seen: Set<number>): string {
  const firstNew = hashIds.findIndex((id) => !seen.has(id));
  const known = firstNew === -1 ? hashIds.length : firstNew;
  for (const id of hashIds) seen.add(id);
  if (known === 0) return "nothing known";
  return known * 2 < hashIds.length ? "less than half known" : "half or more known";
}

function request(
  { inputTokens, outputTokens, hashIds }: TraceRequest,
  { id, group, checked }: { id: string; group: string; checked: boolean },
  scale: TextScale & { seed: number },
): BenchRequest {
  const characters = charactersOf(inputTokens, scale);
  const blocks = hashIds.map((hashId) => block(hashId, scale));
  const text = blocks
    .map((each) => each.text)
    .join("")
    .slice(0, characters);
  const asked = checked ? withQuestion(text, blocks, new Random(seedOf(scale.seed, id))) : undefined;
  return chatRequest({
    id,
    group,
    messages: [{ role: "user", content: asked?.content ?? text }],
    outputTokens: Math.max(1, outputTokens),
    expected: asked?.expected,
  });
}

/** The text of a block: a passage of its own, and a line break. */
function block(hashId: number, scale: TextScale & { seed: number }): Passage {
  const { text, questions } = passage(charactersOf(BLOCK_TOKENS, scale) - 1, seedOf(scale.seed, `block ${hashId}`));
  return { text: `${text}\n`, questions };
}

/** The text with its end replaced by a question; undefined when nothing that is left can be asked about. */
function withQuestion(text: string, blocks: readonly Passage[], rng: Random) {
  let left = text.length - LONGEST_QUESTION;
  const about = blocks.map((each): Passage => {
    const kept = each.text.slice(0, Math.max(0, left));
    left -= each.text.length;
    // What follows a note tells that it was not cut.
    const isKept = ({ note }: PassageQuestion) => kept.includes(`${note} `) || kept.includes(`${note}\n`);
    return { text: each.text, questions: each.questions.filter(isKept) };
  });
  const found = questionAmong(about, about, rng);
  if (found === undefined) return undefined;
  const end = `\n\nQuestion: ${found.question}`;
  return { content: `${text.slice(0, text.length - end.length)}${end}`, expected: found.answer };
}

/** Characters of the longest question with what stands before it, and then some. */
const LONGEST_QUESTION = 120;

function read(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    throw new RepriseError("BAD_CONFIG", `--trace ${file} cannot be read: ${describe(error)}`, { cause: error });
  }
}
