/**
 * A real Mooncake of the tests' own: a master, and hosts that give memory to its pool. `.ci/run` installs the wheel and says where its
 * Python is (REPRISE_TEST_MOONCAKE).
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "./valkey.ts";

/** The Python that has the wheel. Where CI is set it must be there. */
export const python = process.env["REPRISE_TEST_MOONCAKE"] ?? "";
export const isHere = existsSync(python) || process.env["CI"] !== undefined;

export interface Program {
  readonly process: ChildProcess;
  kill(): Promise<void>;
}

export interface Pool extends AsyncDisposable {
  /** As `--tier` has it. */
  readonly address: string;
  readonly port: number;
  readonly master: Program;
  readonly hosts: readonly Program[];
  /** The master again on its port, without what it knew. */
  restartMaster(): Promise<void>;
}

export interface PoolOptions {
  /** That each host gives. */
  readonly bytes?: number;
  readonly hosts?: number;
  /** How long a value stays that was read. */
  readonly leaseMs?: number;
}

export async function startPool({ bytes = 2 ** 28, hosts = 1, leaseMs = 2000 }: PoolOptions = {}): Promise<Pool> {
  const port = await freePort();
  let master = await startMaster(port, leaseMs);
  const given: Program[] = [];
  for (let i = 0; i < hosts; i += 1) given.push(await startHost(port, bytes));
  return {
    port,
    address: `mooncake://127.0.0.1:${port}?python=${encodeURIComponent(python)}`,
    get master() {
      return master;
    },
    hosts: given,
    async restartMaster() {
      master = await startMaster(port, leaseMs);
    },
    async [Symbol.asyncDispose]() {
      for (const each of [...given, master]) await each.kill();
    },
  };
}

/** A master without a host. */
export async function startMaster(port: number, leaseMs = 2000): Promise<Program> {
  const metrics = await freePort();
  const args = ["--rpc_address=127.0.0.1", `--rpc_port=${port}`, `--default_kv_lease_ttl=${leaseMs}`];
  const more = ["--metrics_host=127.0.0.1", `--metrics_port=${metrics}`, "--enable_metric_reporting=false"];
  const program = launch(wheelProgram("mooncake_master"), [...args, ...more, "--client_ttl=2"]);
  await answering("mooncake_master", program, port);
  return program;
}

/** Mooncake's own client, which gives memory and does nothing else. Ports that were free may be taken meanwhile: then once more. */
async function startHost(masterPort: number, bytes: number, tries = 3): Promise<Program> {
  const port = await freePort();
  const program = launch(wheelProgram("mooncake_client"), [
    "--host=127.0.0.1",
    `--port=${port}`,
    `--master_server_address=127.0.0.1:${masterPort}`,
    "--metadata_server=P2PHANDSHAKE",
    `--global_segment_size=${bytes}`,
    "--protocol=tcp",
  ]);
  try {
    await answering("mooncake_client", program, port);
    return program;
  } catch (error) {
    await program.kill();
    if (tries === 1) throw error;
    return startHost(masterPort, bytes, tries - 1);
  }
}

/** Resolves when the program takes connections: its libraries may have to come from a disk first. @throws Error */
async function answering(name: string, program: Program, port: number): Promise<void> {
  for (const began = performance.now(); !(await accepts(port)); await sleep(20)) {
    const { exitCode, signalCode } = program.process;
    if (exitCode !== null || signalCode !== null) throw new Error(`${name} ended with ${exitCode ?? signalCode}`);
    if (performance.now() - began > 20_000) throw new Error(`${name} does not answer`);
  }
}

function launch(path: string, args: readonly string[]): Program {
  const child = spawn(path, args, { stdio: "ignore", env: { ...process.env, GLOG_minloglevel: "3" } });
  return {
    process: child,
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, "exit");
      child.kill("SIGKILL");
      await ended;
    },
  };
}

let folder: string | undefined;

function wheelProgram(name: string): string {
  const code = "import mooncake; print(mooncake.__file__)";
  folder ??= dirname(execFileSync(python, ["-c", code], { encoding: "utf8" }).trim());
  return join(folder, name);
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1" });
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.once("connect", () => socket.destroy());
  });
}
