/** A real `reprise serve` or `reprise cache` in a process group of its own, for whole-system tests and benchmarks. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { isFull } from "./depth.ts";
import { commandPath, shippedModelPath } from "./repository.ts";

/**
 * The engine's threads spin while they wait for one another: where other programs want the cores, two are slower than one. At
 * full depth there are as many as a user's server has.
 */
const oneThread: Readonly<Record<string, string>> = isFull ? {} : { REPRISE_THREADS: "1" };

export interface ServerOptions {
  readonly dataDirectory: string;
  /** Further flags. A port is chosen freely unless one is given here. */
  readonly flags?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Files that it may have open at a time. */
  readonly openFiles?: number;
  /** The network namespace that it runs in. */
  readonly netns?: string;
}

export interface RunningServer {
  readonly url: string;
  readonly pid: number;
  /** What the server said so far, both streams. */
  readonly output: () => string;
  /** Kills the whole process group, server and engine, without warning. */
  killAll(): Promise<void>;
  /** Sends a signal to the server process alone. */
  signal(name: NodeJS.Signals): void;
  /** Resolves when the server process has ended. */
  readonly ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Ends it as a user would, and waits. */
  stop(): Promise<number | null>;
}

/** Starts a server and waits for its ready line. @throws Error with all that it printed when it ends before that. */
export async function startServer(options: ServerOptions): Promise<RunningServer> {
  const started = launchServer(options);
  const url = await started.ready;
  return { ...started, url };
}

export interface LaunchedServer extends Omit<RunningServer, "url"> {
  /** The address from the ready line. */
  readonly ready: Promise<string>;
}

export function launchServer(options: ServerOptions): LaunchedServer {
  const flags = options.flags ?? [];
  const port = flags.includes("--port") ? [] : ["--port", "0"];
  const model = flags.includes("--model") ? [] : ["--model", shippedModelPath];
  return launch(["serve", ...model, "--data-dir", options.dataDirectory, ...port, ...flags], options);
}

/** `reprise cache` alone. Its address is `unix:` and a path. */
export function launchCache(options: ServerOptions): LaunchedServer {
  return launch(["cache", "--data-dir", options.dataDirectory, ...(options.flags ?? [])], options);
}

/** The same, awaited. */
export async function startCache(options: ServerOptions): Promise<LaunchedServer & { readonly socketPath: string }> {
  const started = launchCache(options);
  return { ...started, socketPath: (await started.ready).replace(/^unix:/, "") };
}

/** The processes of a server. */
export function childrenOf(pid: number): { readonly engine: number; readonly tokenizers: readonly number[] } {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").map(Number);
  const isTokenizer = (child: number) => readFileSync(`/proc/${child}/cmdline`, "latin1").includes("tokenizer-process");
  const tokenizers = children.filter(isTokenizer);
  const engine = children.find((child) => !tokenizers.includes(child));
  if (engine === undefined || engine === 0) throw new Error(`process ${pid} has no engine process`);
  return { engine, tokenizers };
}

function launch(
  typed: readonly string[],
  { environment = {}, openFiles, netns }: Partial<ServerOptions>,
): LaunchedServer {
  const inside = netns === undefined ? [] : ["ip", "netns", "exec", netns];
  const command = [...inside, process.execPath, commandPath, ...typed];
  const limited = ["bash", "-c", 'ulimit -n "$0" && exec "$@"', String(openFiles), ...command];
  const [program, ...args] = openFiles === undefined ? command : limited;
  // Neither command is empty.
  const child = spawn(program!, args, {
    detached: true,
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...oneThread, ...process.env, ...environment },
  });
  const pid = child.pid;
  if (pid === undefined) throw new Error("the server could not be started");

  let said = "";
  const ended = once(child, "exit").then(([code, signal]) => ({
    code: code as number | null,
    signal: signal as NodeJS.Signals | null,
  }));
  child.stderr.setEncoding("utf8").on("data", (chunk: string) => (said += chunk));
  const ready = new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on("line", (line) => {
      said += `${line}\n`;
      const [, url] = /^Reprise is ready at (http:\/\/\S+|unix:.+)/.exec(line) ?? [];
      if (url !== undefined) resolve(url);
    });
    void ended.then(({ code, signal }) =>
      reject(new Error(`the server ended (${code ?? signal}) before it was ready:\n${said}`)),
    );
  });
  ready.catch(() => {}); // whoever wants it awaits it

  return {
    pid,
    ready,
    ended,
    output: () => said,
    signal: (name) => child.kill(name),
    async killAll() {
      try {
        process.kill(-pid, "SIGKILL");
      } catch {
        // already gone
      }
      await ended;
    },
    async stop() {
      child.kill("SIGTERM");
      return (await ended).code;
    },
  };
}
