/**
 * Many users, each with a long history of their own, who ask in rounds: the multi-round-qa benchmark of LMCache and the
 * vLLM production stack, with its parameters.
 *
 * Request q of the run is due at q / QPS and belongs to seat q mod N, so that a user asks every N / QPS seconds and
 * requests come evenly. In a seat one user follows another, after R rounds each. Users who are there at the start have
 * part of their rounds behind them, spread so that one leaves and one joins every R requests:
 *
 *     N = 4, R = 3     seat 0   A1 A2 A3 | E1 E2 E3 | ...
 *                      seat 1   B1 B2 | F1 F2 F3 | ...
 *                      seat 2   C1 | G1 G2 G3 | ...
 *                      seat 3   D1 D2 D3 | H1 ...
 *
 * Three things differ from the original. There a user joins every (R - 1) / QPS seconds, which offers R / (R - 1) times
 * the rate asked for. Users there at the start count the rounds that they did not ask; here a user's first request is
 * round 1. And its text is the word "hi"; here it is notes, whose questions have answers.
 */
import { ask } from "../notes/notes.ts";
import { Random, seedOf } from "../random.ts";
import type { WorkloadDefinition } from "../workload-definition.ts";
import type { Actor, TextScale } from "../workload.ts";
import { type ChatMessage, chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, OPEN_QUESTION, passage, plainText } from "./passage.ts";

export const multiRoundQa: WorkloadDefinition = {
  summary: "users with long histories ask in rounds (as multi-round-qa of LMCache and the vLLM production stack)",
  options: {
    "num-users": { value: "N", help: "users at a time", default: "320" },
    "num-rounds": { value: "N", help: "questions that each user asks", default: "10" },
    qps: { value: "RATE", help: "requests per second, of all users together", default: "1" },
    "shared-system-prompt": { value: "TOKENS", help: "length of the system prompt that all share", default: "1000" },
    "user-history-prompt": { value: "TOKENS", help: "length of each user's own history", default: "20000" },
    "answer-len": { value: "TOKENS", help: "length of each answer", default: "100" },
    "checked-share": checkedShareOption("users", "0.1"),
  },
  create(given, scale) {
    const options = new OptionReader(multiRoundQa.options, given);
    const settings: Settings = {
      users: options.whole("num-users"),
      rounds: options.whole("num-rounds"),
      qps: options.above0("qps"),
      systemTokens: options.whole("shared-system-prompt", { atLeast: 0 }),
      historyTokens: options.whole("user-history-prompt", { atLeast: 0 }),
      answerTokens: options.whole("answer-len"),
      checkedShare: options.share("checked-share"),
    };
    options.done();
    return { name: "multi-round-qa", concurrency: undefined, actors: () => sessions(settings, scale) };
  },
};

interface Settings {
  readonly users: number;
  readonly rounds: number;
  readonly qps: number;
  readonly systemTokens: number;
  readonly historyTokens: number;
  readonly answerTokens: number;
  readonly checkedShare: number;
}

/** Without end: as users leave, others join. */
function* sessions(settings: Settings, scale: TextScale & { seed: number }): Generator<Actor> {
  const { users, qps, rounds } = settings;
  const system = plainText(charactersOf(settings.systemTokens, scale), seedOf(scale.seed, "system"));
  let user = 0;
  for (let request = 0; ; request++) {
    const seat = request % users;
    const turn = Math.floor(request / users);
    const done = (turn + seat) % rounds;
    if (turn > 0 && done > 0) continue;
    user++;
    const times = { startMs: (request / qps) * 1000, gapMs: (users / qps) * 1000 };
    yield { ...times, next: session({ user, rounds: rounds - done, system }, settings, scale) };
  }
}

/** One user's questions. All of a checked user's are checked: an answer of forced length would mislead the next. */
function session(
  { user, rounds, system }: { user: number; rounds: number; system: string },
  { historyTokens, answerTokens, checkedShare }: Settings,
  scale: TextScale & { seed: number },
): Actor["next"] {
  const seed = seedOf(scale.seed, `user ${user}`);
  const checked = isChecked(user - 1, checkedShare);
  let chat: { history: string; questions: readonly { question: string; answer?: string }[] } | undefined;
  const messages: ChatMessage[] = system === "" ? [] : [{ role: "system", content: system }];
  let round = 0;
  return (previousAnswer) => {
    if (round === rounds) return undefined;
    if (round > 0) messages.push({ role: "assistant", content: previousAnswer ?? "" });
    chat ??= makeChat(charactersOf(historyTokens, scale), rounds, seed);
    const asked = chat.questions[round % chat.questions.length] ?? { question: OPEN_QUESTION };
    const content = round === 0 ? ask(chat.history, asked.question) : `Question: ${asked.question}`;
    messages.push({ role: "user", content });
    round++;
    return chatRequest({
      id: `user ${user} round ${round}`,
      group: `round ${round}`,
      messages,
      outputTokens: answerTokens,
      expected: checked ? asked.answer : undefined,
    });
  };
}

function makeChat(characters: number, rounds: number, seed: number) {
  const { text, questions } = passage(characters, seed);
  return { history: text, questions: new Random(seed).some(questions, rounds) };
}
