/**
 * Many users, each with a long history of their own, who ask in rounds: the multi-round-qa benchmark of LMCache and the
 * vLLM production stack (benchmarks/multi-round-qa/multi-round-qa.py), with its parameters and its schedule.
 *
 * A user asks every N / QPS seconds, R times. One joins at the start and every (R - 1) / QPS seconds from then on; N more are
 * there at the start, as if they had joined before at that pace: so many of their rounds are behind them, and the first of
 * these, who has none left, asks nothing. Since R questions of a user take (R - 1) gaps, this offers R / (R - 1) times the
 * rate asked for. Where N and R - 1 have a common factor so many users ask at the same moments. With one round a user joins
 * every 1 / QPS seconds.
 *
 *     N = 2, R = 3, QPS = 1     seconds  0  1  2  3  4  5  6
 *       there at the start, 2 behind        B
 *       joins at 0                       C     C     C
 *       joins at 2                             D     D     D
 *       joins at 4                                   E     E …
 *
 * The original looks at its users every 0.1 s, which keeps apart what would be due at the same moment: the last question of a
 * user, and the first of the one who joins N later. Gaps are therefore rounded up to tenths of a second here.
 *
 * What differs from the original: answers have their full length, also where the model would end sooner; and the text is
 * notes, whose questions have answers, unless `--text hi` asks for the original's, letter for letter. bench/agreement.ts
 * measures that both then find the same times.
 */
import { ask } from "../notes/notes.ts";
import { Random, seedOf } from "../notes/random.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import type { Actor, TextScale } from "./workload.ts";
import { type ChatMessage, chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, OPEN_QUESTION, passage, plainText } from "./passage.ts";

export const multiRoundQa: WorkloadDefinition = {
  summary: "users with long histories ask in rounds (as multi-round-qa of LMCache and the vLLM production stack)",
  options: {
    "num-users": { value: "N", help: "users at a time", default: "320" },
    "num-rounds": { value: "N", help: "questions that each user asks", default: "10" },
    qps: {
      value: "RATE",
      help: "requests per second of all users; as in the original, R rounds offer R / (R - 1) times as many",
      default: "1",
    },
    "shared-system-prompt": { value: "TOKENS", help: "length of the system prompt that all share", default: "1000" },
    "user-history-prompt": { value: "TOKENS", help: "length of each user's own history", default: "20000" },
    "answer-len": { value: "TOKENS", help: "length of each answer", default: "100" },
    text: {
      value: "notes|hi",
      help: 'notes, which can be asked about, or the original\'s: "hi" for each token',
      default: "notes",
    },
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
      text: options.oneOf("text", ["notes", "hi"]),
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
  readonly text: "notes" | "hi";
  readonly checkedShare: number;
}

/** One who asks: rounds `behind + 1` to R, the first of them at `startMs`. */
interface User {
  readonly number: number;
  readonly behind: number;
  readonly startMs: number;
}

/** Without end: as users leave, others join. */
function* sessions(settings: Settings, scale: TextScale & { seed: number }): Generator<Actor> {
  const gapMs = nextLook(settings.users / settings.qps);
  const chatOf = settings.text === "hi" ? plainChats(settings) : notesChats(settings, scale);
  for (const user of users(settings)) yield { startMs: user.startMs, gapMs, next: chatOf(user) };
}

/** In the order of their first requests. */
function* users({ users, rounds, qps }: Settings): Generator<User> {
  const atStart = Array.from({ length: users }, (_, index): User => {
    // Times in units of 1 / QPS, which are whole: a user's gap is `users`, that between two who join is rounds - 1.
    const sinceJoined = (users - index) * (rounds - 1);
    const behind = Math.floor(sinceJoined / users) + 1;
    return { number: index + 1, behind, startMs: nextLook((behind * users - sinceJoined) / qps) };
  })
    .filter(({ behind }) => behind < rounds)
    .sort((a, b) => a.startMs - b.startMs);
  const joinMs = nextLook(Math.max(1, rounds - 1) / qps);
  for (let number = users + 1; ; number++) {
    const startMs = (number - users - 1) * joinMs;
    while (atStart[0] !== undefined && atStart[0].startMs < startMs) yield atStart.shift()!; // looked at just now
    yield { number, behind: 0, startMs };
  }
}

/** When the original would see that so many seconds have passed, in milliseconds. */
function nextLook(seconds: number): number {
  return Math.ceil(seconds * 10 - 1e-6) * 100; // a product such as 0.7 × 10 may be a little above the whole number
}

/** One user's questions about notes. All of a checked user's are checked: an answer of forced length would mislead the next. */
function notesChats(settings: Settings, scale: TextScale & { seed: number }): (user: User) => Actor["next"] {
  const system = plainText(charactersOf(settings.systemTokens, scale), seedOf(scale.seed, "system"));
  return ({ number, behind }) => {
    const seed = seedOf(scale.seed, `user ${number}`);
    const rounds = settings.rounds - behind;
    const checked = isChecked(number - 1, settings.checkedShare);
    let chat: { history: string; questions: readonly { question: string; answer?: string }[] } | undefined;
    const opening: ChatMessage[] = system === "" ? [] : [{ role: "system", content: system }];
    return inRounds({ number, rounds, opening, answerTokens: settings.answerTokens }, (round) => {
      chat ??= makeChat(charactersOf(settings.historyTokens, scale), rounds, seed);
      const asked = chat.questions[round % chat.questions.length] ?? { question: OPEN_QUESTION };
      const content = round === 0 ? ask(chat.history, asked.question) : `Question: ${asked.question}`;
      return { content, expected: checked ? asked.answer : undefined };
    });
  };
}

/** The original's words: one message holds the system prompt, the history and the first question. */
function plainChats({ rounds, systemTokens, historyTokens, answerTokens }: Settings): (user: User) => Actor["next"] {
  const dummy = (tokens: number) => Array.from({ length: tokens }, () => "hi").join(" ");
  return ({ number, behind }) =>
    inRounds({ number, rounds: rounds - behind, opening: [], answerTokens }, (round) => {
      const question = `Here's question #${behind + round + 1}: can you tell me a new long story with a happy ending?`;
      const before =
        `Hi, here's some system prompt: ${dummy(systemTokens)}.` +
        `For user ${number}, here are some other context: ${dummy(historyTokens)}.`;
      return { content: round === 0 ? before + question : question, expected: undefined };
    });
}

/** A chat that grows by what was answered and the next question. `content` is told the round, from 0. */
function inRounds(
  user: { number: number; rounds: number; opening: readonly ChatMessage[]; answerTokens: number },
  content: (round: number) => { content: string; expected: string | undefined },
): Actor["next"] {
  const messages = [...user.opening];
  let round = 0;
  return (previousAnswer) => {
    if (round === user.rounds) return undefined;
    if (round > 0) messages.push({ role: "assistant", content: previousAnswer ?? "" });
    const asked = content(round);
    messages.push({ role: "user", content: asked.content });
    round++;
    return chatRequest({
      id: `user ${user.number} round ${round}`,
      group: `round ${round}`,
      messages,
      outputTokens: user.answerTokens,
      expected: asked.expected,
    });
  };
}

function makeChat(characters: number, rounds: number, seed: number) {
  const { text, questions } = passage(characters, seed);
  return { history: text, questions: new Random(seed).some(questions, rounds) };
}
