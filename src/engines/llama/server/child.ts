/**
 * A process of ours as the server holds it: started, spoken to, stopped.
 *
 * Nothing here throws. A process that cannot be started (no descriptors, no memory, no process ids) is one that is gone at
 * once: `onExit` says so, later, and whoever wanted it tries again.
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";

export interface ChildOptions<From> {
  /** The program, from engines/llama when it is built; or the path of another. */
  readonly program: string;
  /** Open files that the process gets, under numbers from {@link firstInherited} on. They may be closed once it is started. */
  readonly inherits: readonly number[];
  readonly onMessage: (message: From) => void;
  /** The process is gone, or never was. `how` is for people. Called once, never before the constructor has returned. */
  readonly onExit: (how: string) => void;
  readonly log: Log;
}

/** The number of the first file that a process inherits: behind its standard files and the channel. */
export const firstInherited = 4;
/** Lines of the process's stderr that are kept to explain its death. */
const lastWords = 5;

export class Child<To extends object, From> {
  readonly #options: ChildOptions<From>;
  readonly #process: ChildProcess | undefined;
  readonly #exited: Promise<void>;
  #words: string[] = [];
  #isOver = false;

  constructor(options: ChildOptions<From>) {
    this.#options = options;
    let over!: (how: string) => void; // set by the promise's constructor, which runs at once
    this.#exited = new Promise((resolve) => {
      over = (how) => {
        if (this.#isOver) return;
        this.#isOver = true;
        resolve();
        options.onExit(this.#words.length > 0 ? `${how}: ${this.#words.join(" / ")}` : how);
      };
    });
    try {
      this.#process = fork(programPath(options.program), [], {
        serialization: "advanced",
        stdio: ["ignore", "ignore", "pipe", "ipc", ...options.inherits],
        execArgv: [],
        // On an abort ggml would start a debugger for a backtrace, and the death would be noticed late.
        env: { ...process.env, GGML_NO_BACKTRACE: "1" },
      });
      this.#listen(this.#process, over);
    } catch (error) {
      setImmediate(() => over(`it cannot be started: ${describe(error)}`));
    }
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** Sends a message; to a process that is gone it goes nowhere, and onExit says so. */
  send(message: To): void {
    if (this.#process?.connected === true) this.#process.send(message, () => {});
  }

  /** Ends the process and waits until it is gone. It holds nothing that needs an orderly end. */
  async kill(): Promise<void> {
    if (!this.#isOver) this.#process?.kill("SIGKILL");
    await this.#exited;
  }

  #listen(child: ChildProcess, over: (how: string) => void): void {
    child.on("message", (message) => this.#options.onMessage(message as From)); // our own program, of the same release
    child.on("close", (code, signal) => over(signal === null ? `it ended with code ${code}` : `it died of ${signal}`));
    child.on("error", (error) => {
      // Of one that runs: a signal or a message did not reach it. Its end comes as "close".
      if (child.pid === undefined) over(`it cannot be started: ${error.message}`);
    });
    // A process that was never started has no streams at all, whatever the types say.
    const stderr = child.stderr as ChildProcess["stderr"] | undefined;
    if (stderr === null || stderr === undefined) return;
    createInterface({ input: stderr }).on("line", (line) => {
      // llama.cpp writes there when it aborts.
      this.#options.log.debug(line);
      this.#words.push(line);
      if (this.#words.length > lastWords) this.#words.shift();
    });
  }
}

/** Where a program lies: in a folder beside this one, or from sources in the build, since Node 20 runs no TypeScript. */
function programPath(program: string): string {
  if (program.startsWith("/")) return program;
  const built = import.meta.url.endsWith(".ts") ? `../../../../dist/engines/llama/${program}` : `../${program}`;
  return fileURLToPath(new URL(built, import.meta.url));
}
