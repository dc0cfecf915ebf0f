/**
 * Reprise and llama-server of the same source (bench/peers/build-llama-server.sh) side by side: the same model, as many sequences,
 * threads and tokens of context, and as much memory for what is not in a sequence. Both stay alive; whoever measures asks them by turns.
 *
 * Reprise also has a disk, as it is shipped. llama-server keeps nothing across a restart: with `--slot-save-path` a client can have
 * one slot written to a file and read back by name, but nothing is written, found or chosen by itself.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { StartedServer } from "../../src/bench/started-server.ts";
import { commandPath, repositoryRoot } from "../../test/support/repository.ts";
import { freePort } from "../../test/support/valkey.ts";
import { rounded } from "./timing.ts";

export interface Room {
  /** The model's file. */
  readonly model: string;
  readonly sequences: number;
  /** Of each sequence. */
  readonly contextTokens: number;
  readonly threads: number;
  /** `--memory`, and `--cache-ram`. */
  readonly memoryBytes: number;
  /** Another checkout of Reprise, built: a third arm. */
  readonly base?: string | undefined;
  /** The llama-server to run; by default the one that is built from our source. */
  readonly llamaServer?: string | undefined;
}

export interface Arm {
  readonly name: "ours" | "base" | "llama";
  readonly url: string;
}

export interface RestartSeconds {
  readonly end: number;
  readonly start: number;
}

export class BothServers implements AsyncDisposable {
  readonly arms: readonly Arm[];
  readonly #commands: ReadonlyMap<Arm, string>;
  readonly #running = new Map<Arm, StartedServer>();
  /** Of the data directories. */
  readonly #folder: string;

  private constructor(commands: ReadonlyMap<Arm, string>, folder: string) {
    this.arms = [...commands.keys()];
    this.#commands = commands;
    this.#folder = folder;
  }

  static async start(room: Room): Promise<BothServers> {
    const folder = mkdtempSync(join(tmpdir(), "reprise-beside-"));
    const commands = new Map<Arm, string>();
    for (const [name, command] of commandsOf(room, folder)) {
      const port = await freePort();
      commands.set({ name, url: `http://127.0.0.1:${port}` }, command(port));
    }
    const servers = new BothServers(commands, folder);
    // They have process groups of their own, and end with this process when it ends in order.
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
    try {
      for (const arm of servers.arms) await servers.#start(arm);
    } catch (error) {
      await servers[Symbol.asyncDispose]();
      throw error;
    }
    return servers;
  }

  /** Ends them in order (SIGTERM) and starts them again as they were, each over its own data directory. */
  async restart(): Promise<Record<string, RestartSeconds>> {
    const took: Record<string, RestartSeconds> = {};
    for (const arm of this.arms) {
      const began = performance.now();
      await this.#running.get(arm)![Symbol.asyncDispose](); // all of them run
      const ended = performance.now();
      await this.#start(arm);
      const seconds = (from: number, to: number) => rounded((to - from) / 1000);
      took[arm.name] = { end: seconds(began, ended), start: seconds(ended, performance.now()) };
    }
    return took;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.#running.values()) await server[Symbol.asyncDispose]();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async #start(arm: Arm): Promise<void> {
    const server = await StartedServer.start(this.#commands.get(arm)!); // made with the arms
    this.#running.set(arm, server);
    await server.ready((signal) => isReady(arm.url, signal), AbortSignal.timeout(120_000));
  }
}

/** Asks each of them in every round, one after the other; who is first goes round. */
export async function byTurns(
  arms: readonly Arm[],
  rounds: number,
  work: (arm: Arm, round: number) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < rounds; round += 1)
    for (let i = 0; i < arms.length; i += 1) await work(arms[(round + i) % arms.length]!, round); // within its length
}

function commandsOf(room: Room, folder: string): [Arm["name"], (port: number) => string][] {
  const { model, sequences, contextTokens, threads, memoryBytes } = room;
  const build = join(repositoryRoot, "bench", "peers", "build-llama-server.sh");
  const llama = room.llamaServer ?? execFileSync(build, { encoding: "utf8" }).trim().split("\n").at(-1)!;
  const reprise = (program: string, name: string) => (port: number) =>
    `${process.execPath} ${program} serve --port ${port} --data-dir ${join(folder, name)} --model ${model} ` +
    `--sequences ${sequences} --context ${contextTokens} --threads ${threads} --memory ${memoryBytes} --gpu off`;
  const commands: [Arm["name"], (port: number) => string][] = [
    ["ours", reprise(commandPath, "ours")],
    [
      "llama",
      (port) =>
        `${llama} --port ${port} -m ${model} -np ${sequences} -c ${sequences * contextTokens} -t ${threads} ` +
        `--cache-ram ${Math.floor(memoryBytes / 2 ** 20)} -fa on --no-webui`,
    ],
  ];
  if (room.base !== undefined)
    commands.push(["base", reprise(join(resolve(room.base), "dist", "cli", "main.js"), "base")]);
  return commands;
}

async function isReady(url: string, signal: AbortSignal): Promise<boolean> {
  try {
    const answer = await fetch(`${url}/health`, { signal: AbortSignal.any([signal, AbortSignal.timeout(2000)]) });
    await answer.text();
    return answer.ok;
  } catch {
    return false;
  }
}
