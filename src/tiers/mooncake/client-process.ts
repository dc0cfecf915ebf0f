/**
 * One life of the process that Mooncake's client runs in: started with a socket and memory that nobody else has, spoken to, ended. Its
 * end is the end of every request, and it never outlives us: its socket closes, and the kernel ends it.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { describe } from "../../errors.ts";
import type { MooncakeAddress } from "./address.ts";
import { FrameReader, openingFrame, requestFrame, type Request, type Said } from "./messages.ts";

export interface ClientProcessOptions {
  readonly address: MooncakeAddress;
  /** The memory that requests name places in. */
  readonly memoryFile: number;
  readonly onState: (state: Extract<Said, { state: string }>) => void;
  /** Called once, never before the constructor has returned. */
  readonly onExit: (how: string) => void;
}

interface Asked {
  readonly names: number;
  readonly resolve: (results: readonly number[]) => void;
  readonly reject: (error: Error) => void;
}

/** In the package as in a checkout as far from src/ as from dist/; programs of a checkout are built one folder deeper. */
const folder = ["../../../python/", "../../../../python/"]
  .map((path) => fileURLToPath(new URL(path, import.meta.url)))
  .find((path) => existsSync(join(path, "reprise_mooncake")));
/**
 * Of the system; of Python and its environments; of Mooncake and what it stands on (glog, libibverbs and its drivers, libfabric), where
 * every name that it reads itself begins with MC_ or MOONCAKE_ but for one of NCCL's.
 */
const passedOn =
  /^(?:PATH|HOME|USER|LOGNAME|SHELL|TMPDIR|TZ|LANG|LANGUAGE|LC_\w+|LD_\w+|PYTHON\w+|VIRTUAL_ENV|CONDA_PREFIX|MC_\w+|MOONCAKE_\w+|GLOG_\w+|NCCL_IB_GID_INDEX|(?:IBV|RDMAV|MLX[45]|FI)_\w+)$/;
/** Of the last line that it wrote to stderr, which may explain its end. */
const lastWordsLength = 300;
/** Where others read what lies in its memory it takes leave of Mooncake's master, who knows then at once that it is gone. */
const endMs = 3000;

export class ClientProcess {
  readonly #options: ClientProcessOptions;
  readonly #asked = new Map<number, Asked>();
  readonly #exited: Promise<void>;
  #process: ChildProcess | undefined;
  #socket: Duplex | undefined;
  #lastWords = "";
  #isOver = false;
  #lastId = 0;

  constructor(options: ClientProcessOptions) {
    this.#options = options;
    let over!: (how: string) => void; // set by the promise's constructor, which runs at once
    this.#exited = new Promise((resolve) => {
      over = (how) => {
        if (this.#isOver) return;
        this.#isOver = true;
        for (const { reject } of this.#asked.values()) reject(new Error("its client's process ended"));
        this.#asked.clear();
        resolve();
        options.onExit(this.#lastWords === "" ? how : `${how}: ${this.#lastWords}`);
      };
    });
    try {
      this.#start(over);
    } catch (error) {
      setImmediate(() => over(`it cannot be started: ${describe(error)}`));
    }
  }

  get pid(): number | undefined {
    return this.#process?.pid;
  }

  /** One number for each name. It is answered, or the process is gone. @throws Error when it ends before */
  ask(request: Request): Promise<readonly number[]> {
    return new Promise((resolve, reject) => {
      if (this.#isOver || this.#socket === undefined) {
        reject(new Error("its client's process ended"));
        return;
      }
      const id = (this.#lastId += 1);
      this.#asked.set(id, { names: request.names.length, resolve, reject });
      this.#socket.write(requestFrame(id, request));
    });
  }

  /** At once; the exit comes later. */
  kill(): void {
    if (!this.#isOver) this.#process?.kill("SIGKILL");
  }

  /** In order where that can be had soon. Resolves when the process is gone. */
  async end(): Promise<void> {
    const isWaitedFor = this.#options.address.segmentBytes > 0;
    const timer = setTimeout(() => this.kill(), isWaitedFor ? endMs : 0);
    this.#socket?.end();
    await this.#exited;
    clearTimeout(timer);
  }

  #start(over: (how: string) => void): void {
    const { address, memoryFile } = this.#options;
    if (folder === undefined) throw new Error("this installation of reprise lacks python/reprise_mooncake");
    const child = spawn(address.python, ["-B", "-m", "reprise_mooncake"], {
      cwd: folder,
      stdio: ["ignore", "ignore", "pipe", "pipe", memoryFile],
      env: environment(),
    });
    this.#process = child;
    child.on("error", (error) => {
      // Of one that runs: a signal did not reach it. Its end comes as "exit".
      if (child.pid === undefined) over(`${address.python} cannot be started: ${error.message}`);
    });
    // Not "close", which waits for files that a process of its own may have inherited: memory and socket are free now.
    child.on("exit", (code, signal) => over(signal === null ? `it ended with code ${code}` : `it died of ${signal}`));
    if (child.stderr !== null)
      createInterface({ input: child.stderr }).on("line", (line) => (this.#lastWords = line.slice(0, lastWordsLength)));
    const socket = child.stdio[3] as Duplex | null | undefined; // a pipe, as it was asked for
    if (socket === null || socket === undefined) return;
    this.#socket = socket;
    const reader = new FrameReader();
    socket.on("error", () => this.kill());
    socket.on("data", (bytes: Buffer) => {
      if (this.#isOver) return; // what it said before its end counts no more: it is started again
      try {
        for (const said of reader.take(bytes)) this.#heard(said);
      } catch (error) {
        this.#lastWords = `it said what makes no sense: ${describe(error)}`;
        this.kill();
      }
    });
    socket.write(openingFrame(address));
  }

  #heard(said: Said): void {
    if ("state" in said) {
      this.#options.onState(said);
      return;
    }
    const asked = this.#asked.get(said.id);
    if (asked === undefined || said.results.length !== asked.names) throw new Error("an answer to no question");
    this.#asked.delete(said.id);
    asked.resolve(said.results);
  }
}

/** Of ours: what a Python and Mooncake read. All else may be a secret. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => passedOn.test(name)));
}
