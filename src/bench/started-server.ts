/** A server that the run starts itself, in a process group of its own, and ends when it is measured. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { describe, RepriseError } from "../errors.ts";
import { splitWords } from "./words.ts";

/** Loading a large model from a slow disk takes minutes; a server that is not there by then will not come. */
const readyMs = 600_000;
const betweenLooksMs = 100;
/** A server may take so long to save what it holds; then its whole group is killed. */
const endMs = 20_000;
/** As much of what it said as an error repeats. */
const rememberedCharacters = 4000;

export class StartedServer implements AsyncDisposable {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #command: string;
  readonly #ended: Promise<unknown>;
  readonly #killGroup: () => void;
  #said = "";

  private constructor(child: ChildProcess, pid: number, command: string) {
    this.pid = pid;
    this.#child = child;
    this.#command = command;
    this.#ended = once(child, "exit");
    // Both streams are read to their ends: a server that nobody hears blocks when the pipe is full.
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#said = (this.#said + text).slice(-rememberedCharacters);
      });
    }
    this.#killGroup = () => killGroup(pid);
    process.once("exit", this.#killGroup); // the group outlives nobody, however this process ends in order
  }

  /** @throws RepriseError TARGET_UNAVAILABLE when there is no such program. */
  static async start(command: string): Promise<StartedServer> {
    const [program, ...args] = splitWords(command);
    if (program === undefined) throw new RepriseError("BAD_CONFIG", "--start needs a command");
    const child = spawn(program, args, { detached: true, stdio: ["ignore", "pipe", "pipe"] });
    try {
      await once(child, "spawn");
    } catch (error) {
      throw new RepriseError("TARGET_UNAVAILABLE", `--start ${command}: ${describe(error)}`, { cause: error });
    }
    return new StartedServer(child, child.pid!, command); // it was spawned
  }

  /** Waits until `isReady`. @throws RepriseError TARGET_UNAVAILABLE with the server's last words when it ends before. */
  async ready(isReady: (signal: AbortSignal) => Promise<boolean>, signal: AbortSignal): Promise<void> {
    const end = performance.now() + readyMs;
    while (!(await isReady(signal))) {
      if (signal.aborted) throw new RepriseError("CANCELLED", `${this.#command}: ended before it was ready`);
      const { exitCode, signalCode } = this.#child;
      if (exitCode !== null || signalCode !== null) {
        throw this.#failure(`ended (${exitCode ?? signalCode}) before it was ready`);
      }
      if (performance.now() > end) throw this.#failure(`was not ready after ${readyMs / 1000} s`);
      await sleep(betweenLooksMs);
    }
  }

  /** Kills it and all that it started, without warning, and waits until it is gone. */
  async kill(): Promise<void> {
    this.#killGroup();
    await this.#ended;
    process.off("exit", this.#killGroup);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill("SIGTERM");
    await Promise.race([this.#ended, sleep(endMs, undefined, { ref: false })]);
    this.#killGroup(); // and what the server itself left behind
    await this.#ended;
    process.off("exit", this.#killGroup);
  }

  #failure(what: string): RepriseError {
    return new RepriseError("TARGET_UNAVAILABLE", `--start ${this.#command}: ${what}; it said:\n${this.#said.trim()}`);
  }
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // nobody is left in it
  }
}
