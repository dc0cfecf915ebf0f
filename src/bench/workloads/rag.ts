/**
 * Retrieval: every prompt is a few documents of a pool, in random order, and a question about one of them at the end.
 *
 * Documents are drawn by Zipf's law (the n-th most popular with weight 1 / n^s). A cache of prefixes can reuse no more
 * than the documents at the front, so requests are grouped by whether the first document stood first before.
 */
import { ask } from "../notes/notes.ts";
import { Random, seedOf } from "../notes/random.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import type { BenchRequest, TextScale } from "./workload.ts";
import { chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, OPEN_QUESTION, passage, questionAmong } from "./passage.ts";
import { requestList, type TimedRequest } from "./request-list.ts";

export const rag: WorkloadDefinition = {
  summary: "prompts of several documents drawn from a pool, the question last",
  options: {
    pool: { value: "N", help: "different documents", default: "50" },
    k: { value: "N", help: "documents in a prompt", default: "5" },
    "document-length": { value: "TOKENS", help: "length of each document", default: "500" },
    zipf: { value: "S", help: "how unevenly documents are drawn: 0 = all alike", default: "1.0" },
    requests: { value: "N", help: "requests in all", default: "100" },
    "output-len": { value: "TOKENS", help: "length of each answer", default: "100" },
    concurrency: { value: "N", help: "requests at a time", default: "1" },
    "checked-share": checkedShareOption("requests", "0.5"),
  },
  create(given, scale) {
    const options = new OptionReader(rag.options, given);
    const settings: Settings = {
      pool: options.whole("pool"),
      k: options.whole("k"),
      documentTokens: options.whole("document-length"),
      zipf: options.atLeast0("zipf"),
      requests: options.whole("requests"),
      outputTokens: options.whole("output-len"),
      checkedShare: options.share("checked-share"),
    };
    const concurrency = options.whole("concurrency");
    if (settings.k > settings.pool) options.fault("k", `wants no more than the ${settings.pool} of --pool`, undefined);
    options.done();
    return requestList("rag", () => requests(settings, scale), concurrency);
  },
};

interface Settings {
  readonly pool: number;
  readonly k: number;
  readonly documentTokens: number;
  readonly zipf: number;
  readonly requests: number;
  readonly outputTokens: number;
  readonly checkedShare: number;
}

function* requests(settings: Settings, scale: TextScale & { seed: number }): Generator<TimedRequest> {
  const rng = new Random(seedOf(scale.seed, "retrieval"));
  const seen = new Set<number>();
  for (let number = 1; number <= settings.requests; number++) {
    const documents = draw(settings, rng);
    const first = documents[0] ?? 0;
    const group = seen.has(first) ? "first document seen" : "first document new";
    seen.add(first);
    yield { startMs: 0, make: () => request({ number, group, documents }, settings, scale) };
  }
}

/** `k` different documents, popular ones more often, in random order. */
function draw({ pool, k, zipf }: Settings, rng: Random): number[] {
  const rest = Array.from({ length: pool }, (_, document) => ({ document, weight: (document + 1) ** -zipf }));
  const drawn: number[] = [];
  while (drawn.length < k) {
    let point = rng.fraction() * rest.reduce((sum, { weight }) => sum + weight, 0);
    const found = rest.findIndex(({ weight }) => (point -= weight) < 0);
    // Rounding may leave the point just behind the last one.
    const [taken] = rest.splice(found, 1);
    if (taken !== undefined) drawn.push(taken.document);
  }
  return rng.some(drawn, k);
}

function request(
  { number, group, documents }: { number: number; group: string; documents: readonly number[] },
  { documentTokens, outputTokens, checkedShare }: Settings,
  scale: TextScale & { seed: number },
): BenchRequest {
  const characters = charactersOf(documentTokens, scale);
  const passages = documents.map((document) => passage(characters, seedOf(scale.seed, `document ${document}`)));
  const question = questionAmong(passages, passages, new Random(seedOf(scale.seed, `question ${number}`)));
  const content = ask(passages.map(({ text }) => text).join("\n\n"), question?.question ?? OPEN_QUESTION);
  return chatRequest({
    id: `request ${number}`,
    group,
    messages: [{ role: "user", content }],
    outputTokens,
    expected: isChecked(number - 1, checkedShare) ? question?.answer : undefined,
  });
}
