/**
 * One line of the log for each answer, told when it has ended:
 *
 *     3,915 tokens: 1 computed, 3,914 disk; first token 119 ms; 2 out in 0.2 s
 *
 * Counts and times, nothing of what was asked or answered.
 */
import type { GenerateEvent, PromptReport } from "../../engine.ts";
import type { Log } from "../../log.ts";
import { tierNames } from "../../tier.ts";

export class AnswerLine {
  readonly #log: Log;
  readonly #began = performance.now();
  #report: PromptReport | undefined;
  #tokens = 0;

  constructor(log: Log) {
    this.#log = log;
  }

  /** Something of the answer. */
  saw(event: GenerateEvent): void {
    if (event.kind === "prompt") this.#report = event.report;
    else if (event.kind === "text") this.#tokens += event.tokens.length;
    else this.#tokens = event.completionTokens;
  }

  /** The answer is over. @param how `whole`, or why there is no more of it */
  over(how: "whole" | "the client left" | "cut short"): void {
    if (this.#report === undefined) {
      if (how === "the client left") this.#log.info(`${how} before the first token, after ${this.#seconds()}`);
      return;
    }
    const { promptTokens, computedTokens, reused, ttftMs } = this.#report;
    const parts = [
      `${counted(computedTokens)} computed`,
      ...tierNames.flatMap((tier) => ((reused[tier] ?? 0) > 0 ? [`${counted(reused[tier]!)} ${tier}`] : [])), // above 0
    ];
    const end = how === "whole" ? "" : `, then ${how}`;
    this.#log.info(
      `${counted(promptTokens)} tokens: ${parts.join(", ")}; first token ${counted(Math.round(ttftMs))} ms; ` +
        `${counted(this.#tokens)} out in ${this.#seconds()}${end}`,
    );
  }

  #seconds(): string {
    return `${((performance.now() - this.#began) / 1000).toFixed(1)} s`;
  }
}

function counted(value: number): string {
  return value.toLocaleString("en");
}
