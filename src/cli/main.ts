#!/usr/bin/env node
/**
 * The command line: finds the command, runs it, and turns what it throws into words and an exit code:
 * 0 done, 1 failed, 2 used wrongly, 3 somebody else has the data directory already.
 */
import { nearest } from "../config.ts";
import { describe, type ErrorCode, RepriseError } from "../errors.ts";
import { version } from "../version.ts";
import { commandHelp, generalHelp } from "./help.ts";
import type { Command } from "./command.ts";
import { parseCommand } from "./arguments.ts";
import { bench } from "./bench.ts";
import { cache } from "./cache.ts";
import { inspect } from "./inspect.ts";
import { serve } from "./serve.ts";
import { verify } from "./verify.ts";

const commands: readonly Command[] = [serve, cache, inspect, verify, bench];
const exitCodes: Partial<Record<ErrorCode, number>> = { BAD_CONFIG: 2, DATA_DIRECTORY_IN_USE: 3 };

// Whoever started a server may go before it does: what nobody reads any more ends nothing.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});

process.exitCode = await main(process.argv.slice(2));

async function main([name, ...typed]: readonly string[]): Promise<number> {
  if (name === "--version" || name === "-v") {
    process.stdout.write(`reprise ${version}\n`);
    return 0;
  }
  if (name === undefined || name === "--help" || name === "-h" || name === "help") {
    (name === undefined ? process.stderr : process.stdout).write(generalHelp(commands));
    return name === undefined ? 2 : 0;
  }
  const command = commands.find((each) => each.name === name);
  if (command === undefined) {
    const known = commands.map((each) => each.name);
    return fail(`reprise: no command is called "${name}"${nearest(name, known)}; there are: ${known.join(", ")}`, 2);
  }
  if (typed.includes("--help") || typed.includes("-h")) {
    process.stdout.write(commandHelp(command, typed[0]));
    return 0;
  }
  try {
    return await command.run(parseCommand(typed, process.env, command));
  } catch (error) {
    if (!(error instanceof RepriseError)) throw error;
    const lines = describe(error).split("\n");
    return fail(lines.map((line) => `reprise ${name}: ${line}`).join("\n"), exitCodes[error.code] ?? 1);
  }
}

function fail(message: string, exitCode: number): number {
  process.stderr.write(`${message}\n`);
  return exitCode;
}
