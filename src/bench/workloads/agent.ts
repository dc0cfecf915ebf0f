/**
 * Agents at work: a long system prompt with tool definitions, and a history that grows by a tool's result every turn.
 *
 * As in real agents, a line near the top of the system prompt changes with every request (the time, a billing header).
 * All that follows it, most of the prompt, is the same text behind another beginning: a cache of exact prefixes finds
 * next to nothing, which is what this workload measures.
 */
import { ask } from "../notes/notes.ts";
import { Random, seedOf } from "../notes/random.ts";
import type { WorkloadDefinition } from "./workload-definition.ts";
import type { Actor, TextScale } from "./workload.ts";
import { type ChatMessage, chatRequest, checkedShareOption, isChecked } from "./chat-request.ts";
import { OptionReader } from "./option-reader.ts";
import { charactersOf, OPEN_QUESTION, type Passage, passage, plainText, questionAmong } from "./passage.ts";

export const agent: WorkloadDefinition = {
  summary: "agents with tools and a growing history, whose system prompt changes near its top every request",
  options: {
    "system-prompt": {
      value: "TOKENS",
      help: "length of the system prompt, tool definitions included",
      default: "4000",
    },
    turns: { value: "N", help: "requests of each agent", default: "10" },
    agents: { value: "N", help: "agents, all at work at the same time", default: "4" },
    "tool-result": { value: "TOKENS", help: "length of what a tool returns every turn", default: "400" },
    "output-len": { value: "TOKENS", help: "length of each answer", default: "100" },
    "checked-share": checkedShareOption("agents", "0.25"),
  },
  create(given, scale) {
    const options = new OptionReader(agent.options, given);
    const settings: Settings = {
      systemTokens: options.whole("system-prompt", { atLeast: 100 }),
      turns: options.whole("turns"),
      agents: options.whole("agents"),
      resultTokens: options.whole("tool-result"),
      outputTokens: options.whole("output-len"),
      checkedShare: options.share("checked-share"),
    };
    options.done();
    return { name: "agent", concurrency: settings.agents, actors: () => agents(settings, scale) };
  },
};

interface Settings {
  readonly systemTokens: number;
  readonly turns: number;
  readonly agents: number;
  readonly resultTokens: number;
  readonly outputTokens: number;
  readonly checkedShare: number;
}

function* agents(settings: Settings, scale: TextScale & { seed: number }): Generator<Actor> {
  for (let number = 1; number <= settings.agents; number++) {
    yield { startMs: 0, gapMs: 0, next: session(number, settings, scale) };
  }
}

/** One agent's turns. All of a checked agent's are checked: an answer of forced length would mislead the next. */
function session(number: number, settings: Settings, scale: TextScale & { seed: number }): Actor["next"] {
  const checked = isChecked(number - 1, settings.checkedShare);
  const history: ChatMessage[] = [];
  const results: Passage[] = [];
  let turn = 0;
  return (previousAnswer) => {
    if (turn === settings.turns) return undefined;
    if (turn > 0) history.push({ role: "assistant", content: previousAnswer ?? "" });
    turn++;
    const seed = seedOf(scale.seed, `agent ${number} turn ${turn}`);
    const result = passage(charactersOf(settings.resultTokens, scale), seed);
    results.push(result);
    const question = questionAmong([result], results, new Random(seed));
    history.push({ role: "user", content: ask(result.text, question?.question ?? OPEN_QUESTION) });
    const system = systemPrompt(charactersOf(settings.systemTokens, scale), { number, turn, seed: scale.seed });
    return chatRequest({
      id: `agent ${number} turn ${turn}`,
      group: `turn ${turn}`,
      messages: [{ role: "system", content: system }, ...history],
      outputTokens: settings.outputTokens,
      expected: checked ? question?.answer : undefined,
    });
  };
}

/** Of exactly `characters` characters; two of them differ in the second line and in nothing else. */
function systemPrompt(characters: number, { number, turn, seed }: { number: number; turn: number; seed: number }) {
  const time = new Date(FIRST_TIME + (turn * 60 + number) * 1000).toISOString();
  const call = (seedOf(seed, `call ${number} ${turn}`) % 0xffff_ffff).toString(16).padStart(8, "0");
  const top = `You are an agent that answers questions from notes.\nx-billing-header: call=${call}; time=${time}\n\n`;
  const body = `${TOOLS}\n\n${plainText(characters, seedOf(seed, "system"))}`;
  return `${top}${body.slice(0, Math.max(0, characters - top.length))}`;
}

const FIRST_TIME = Date.UTC(2026, 0, 5, 9);

/** As text, since not every server takes `tools`; in words, whose tokens are as long as those of the rest. */
const TOOLS = [
  { name: "read_note", description: "Reads one note and returns its text.", takes: ["number"] },
  { name: "search_notes", description: "Returns the notes in which all words stand.", takes: ["words", "limit"] },
  { name: "list_places", description: "Lists the places that notes were written about.", takes: ["city", "after"] },
  { name: "write_note", description: "Appends a note; nothing written is changed.", takes: ["text", "place"] },
  { name: "correct_note", description: "Appends a correction to an earlier note.", takes: ["number", "text"] },
  { name: "call_place", description: "Calls a place; returns what was said.", takes: ["place", "question"] },
  { name: "plan_visit", description: "Plans a visit; returns who will go.", takes: ["place", "day", "people"] },
  { name: "finish", description: "Ends the work with an answer to the question.", takes: ["answer"] },
]
  .map(({ name, description, takes }) => `Tool ${name} takes ${takes.join(", ")}. ${description}`)
  .join("\n");
