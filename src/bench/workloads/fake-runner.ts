/** A runner without servers and clocks, for tests: asks every actor until it is done, and answers with one text. */
import type { ChatMessage } from "./chat-request.ts";
import type { Actor, BenchRequest, Workload } from "./workload.ts";

export interface Asked {
  readonly request: BenchRequest;
  readonly actor: Actor;
  /** When it is due if answers take no time. */
  readonly dueMs: number;
  readonly messages: readonly ChatMessage[];
  /** The contents of all messages, one after another. */
  readonly prompt: string;
}

export const scale = { charactersPerToken: 4, seed: 42 };

/** The requests of the first `actors` actors, each actor's one after another. */
export function ask(workload: Workload, { actors = Infinity, answer = "An answer." } = {}): Asked[] {
  const asked: Asked[] = [];
  let number = 0;
  for (const actor of workload.actors()) {
    if (number++ >= actors) break;
    let dueMs = actor.startMs;
    for (let request = actor.next(undefined); request !== undefined; request = actor.next(answer)) {
      // Every workload makes chats.
      const messages = request.body["messages"] as readonly ChatMessage[];
      asked.push({ request, actor, dueMs, messages, prompt: messages.map(({ content }) => content).join("") });
      dueMs += actor.gapMs;
    }
  }
  return asked;
}

/** Characters that two texts begin with alike. */
export function sharedPrefix(a: string, b: string): number {
  let shared = 0;
  while (shared < a.length && a[shared] === b[shared]) shared++;
  return shared;
}
