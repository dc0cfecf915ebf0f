/**
 * Long documents, each read once and then asked about again: the long_doc_qa benchmark of LMCache, with its parameters.
 *
 * First every document once, in order; then every document `repeat-count` times more, in the order of `repeat`. Of
 * these, some can be made misses: a number in front of the document changes everything behind it. Questions stand at the
 * end of the prompt and differ, so what is read again is the document.
 */
import { ask } from "../notes/notes.ts";
import { Random, seedOf } from "../notes/random.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import type { BenchRequest, TextScale } from "./workload.ts";
import { chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, OPEN_QUESTION, passage } from "./passage.ts";
import { requestList, type TimedRequest } from "./request-list.ts";

const REPEATS = ["random", "tile", "interleave"] as const;
type Repeat = (typeof REPEATS)[number];

export const longDocQa: WorkloadDefinition = {
  summary: "long documents, read once and asked about again (as long_doc_qa of LMCache)",
  options: {
    documents: { value: "N", help: "different documents", default: "46" },
    "document-length": { value: "TOKENS", help: "length of each document", default: "10000" },
    "output-len": { value: "TOKENS", help: "length of each answer", default: "100" },
    "repeat-count": { value: "N", help: "how often each document is asked about after the first time", default: "2" },
    repeat: {
      value: "ORDER",
      help: "random; tile: all documents, then all again; interleave: one document as often as it is asked about, then the next",
      default: "random",
    },
    "hit-miss-ratio": {
      value: "HITS:MISSES",
      help: "changes some of the repeated questions so that they miss, such as 3:1",
      default: "1:0",
    },
    "max-inflight-requests": { value: "N", help: "requests at a time", default: "4" },
    "checked-share": checkedShareOption("requests", "0.1"),
  },
  create(given, scale) {
    const options = new OptionReader(longDocQa.options, given);
    const settings: Settings = {
      documents: options.whole("documents"),
      documentTokens: options.whole("document-length"),
      outputTokens: options.whole("output-len"),
      repeatCount: options.whole("repeat-count", { atLeast: 0 }),
      repeat: options.oneOf("repeat", REPEATS),
      ratio: readRatio(options),
      checkedShare: options.share("checked-share"),
    };
    const concurrency = options.whole("max-inflight-requests");
    options.done();
    return requestList("long-doc-qa", () => requests(settings, scale), concurrency);
  },
};

interface Settings {
  readonly documents: number;
  readonly documentTokens: number;
  readonly outputTokens: number;
  readonly repeatCount: number;
  readonly repeat: Repeat;
  readonly ratio: { readonly hits: number; readonly misses: number };
  readonly checkedShare: number;
}

interface Reading {
  readonly document: number;
  /** How often the document was asked about before. */
  readonly times: number;
  /** Stands in front of the document, if it shall miss. */
  readonly change: string | undefined;
}

function* requests(settings: Settings, scale: TextScale & { seed: number }): Generator<TimedRequest> {
  let index = 0;
  for (const reading of readings(settings, scale.seed)) {
    const checked = isChecked(index++, settings.checkedShare);
    yield { startMs: 0, make: () => request(reading, checked, settings, scale) };
  }
}

function readings({ documents, repeatCount, repeat, ratio }: Settings, seed: number): Reading[] {
  const rng = new Random(seedOf(seed, "order"));
  const all = Array.from({ length: documents }, (_, document) => document);
  const times = new Map<number, number>();
  const first = all.map((document): Reading => ({ document, times: 0, change: undefined }));
  const again = repeated(all, repeatCount, repeat, rng).map((document, index): Reading => {
    times.set(document, (times.get(document) ?? 0) + 1);
    const misses = index % (ratio.hits + ratio.misses) >= ratio.hits;
    const change = misses ? `${1_000_000 + index} ` : undefined;
    return { document, times: times.get(document) ?? 0, change };
  });
  return [...first, ...again];
}

function repeated(documents: readonly number[], count: number, repeat: Repeat, rng: Random): number[] {
  if (repeat === "interleave") return documents.flatMap((document) => Array.from({ length: count }, () => document));
  const tiled = Array.from({ length: count }, () => documents).flat();
  return repeat === "tile" ? tiled : rng.some(tiled, tiled.length);
}

function request(
  { document, times, change }: Reading,
  checked: boolean,
  { documentTokens, outputTokens, repeatCount }: Settings,
  scale: TextScale & { seed: number },
): BenchRequest {
  const seed = seedOf(scale.seed, `document ${document}`);
  const { text, questions } = passage(charactersOf(documentTokens, scale), seed);
  const asked = new Random(seed).some(questions, repeatCount + 1);
  const question = asked[times % asked.length];
  const content = ask(`${change ?? ""}${text}`, question?.question ?? OPEN_QUESTION);
  return chatRequest({
    id: `document ${document + 1} reading ${times + 1}`,
    group: change !== undefined ? "miss" : times === 0 ? "first reading" : "again",
    messages: [{ role: "user", content }],
    outputTokens,
    expected: checked ? question?.answer : undefined,
  });
}

function readRatio(options: OptionReader): Settings["ratio"] {
  const [, hits, misses] = /^(\d{1,6}):(\d{1,6})$/.exec(options.text("hit-miss-ratio")) ?? [];
  const ratio = { hits: Number(hits), misses: Number(misses) };
  if (ratio.hits + ratio.misses > 0) return ratio;
  return options.fault("hit-miss-ratio", "wants HITS:MISSES, such as 3:1, not both 0", { hits: 1, misses: 0 });
}
