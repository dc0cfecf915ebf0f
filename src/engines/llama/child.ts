/**
 * The engine process as the server holds it: started, spoken to, stopped.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import type { Log } from "../../log.ts";
import { AbortFlag } from "./abort-flag.ts";
import type { FromEngine, StartOptions, ToEngine } from "./messages.ts";

export interface EngineChildOptions {
  readonly start: Omit<StartOptions, "abortFlagPath">;
  readonly onMessage: (message: FromEngine) => void;
  /** The process is gone. `how` is for people. */
  readonly onExit: (how: string) => void;
  readonly log: Log;
}

/** Lines of the process's stderr that are kept to explain its death. */
const lastWords = 5;

export class EngineChild {
  readonly #process: ChildProcess;
  readonly #flag: AbortFlag;
  readonly #exited: Promise<void>;
  #isOver = false;

  constructor(options: EngineChildOptions) {
    this.#flag = AbortFlag.create();
    this.#process = fork(entryPoint(), [], {
      serialization: "advanced",
      stdio: ["ignore", "ignore", "pipe", "ipc"],
      execArgv: [],
      // On an abort ggml would start a debugger for a backtrace, and the death would be noticed late.
      env: { ...process.env, GGML_NO_BACKTRACE: "1" },
    });
    const words = this.#readErrors(options.log);
    this.#process.on("message", (message) => {
      const known = message as FromEngine; // the process is our own, of the same release
      if (known.kind === "ready") this.#flag.unlink();
      options.onMessage(known);
    });
    this.#exited = new Promise((resolve) => {
      const over = (how: string) => {
        if (this.#isOver) return;
        this.#isOver = true;
        this.#flag.close();
        resolve();
        options.onExit(words.length > 0 ? `${how}: ${words.join(" / ")}` : how);
      };
      this.#process.on("close", (code, signal) =>
        over(signal === null ? `it ended with code ${code}` : `it died of ${signal}`),
      );
      this.#process.on("error", (error) => over(error.message));
    });
    this.send({ kind: "start", options: { ...options.start, abortFlagPath: this.#flag.path } });
  }

  get pid(): number | undefined {
    return this.#process.pid;
  }

  /** Sends a message; to a process that is gone it goes nowhere, and onExit says so. */
  send(message: ToEngine): void {
    if (this.#process.connected) this.#process.send(message, () => {});
  }

  /** Stops the decode that runs; a cancellation must be sent right after. */
  raiseAbort(): void {
    this.#flag.raise();
  }

  /** Ends the process and waits until it is gone. It holds nothing that needs an orderly end. */
  async kill(): Promise<void> {
    if (!this.#isOver) this.#process.kill("SIGKILL");
    await this.#exited;
  }

  /** llama.cpp writes to stderr when it aborts. */
  #readErrors(log: Log): string[] {
    const words: string[] = [];
    if (this.#process.stderr === null) return words;
    createInterface({ input: this.#process.stderr }).on("line", (line) => {
      log.debug(line);
      words.push(line);
      if (words.length > lastWords) words.shift();
    });
    return words;
  }
}

/** The process's program: beside this file, or from sources the build of it, since Node 20 runs no TypeScript. */
function entryPoint(): string {
  const built = import.meta.url.endsWith(".ts") ? "../../../dist/engines/llama/process.js" : "./process.js";
  return fileURLToPath(new URL(built, import.meta.url));
}
