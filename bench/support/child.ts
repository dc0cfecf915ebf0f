/** Benchmarks of several processes: a child does its part and says what it measured. */
import type { ChildProcess } from "node:child_process";

/** What a forked child says. Rejects when it ends without a word. */
export function answerOf(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    child.once("message", resolve);
    child.once("exit", (code) => reject(new Error(`a child ended with ${code}`)));
  });
}
