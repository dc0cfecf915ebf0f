#!/usr/bin/env node
/**
 * The command line: finds the command, runs it, and turns what it throws into words and an exit code:
 * 0 done, 1 failed, 2 used wrongly, 3 somebody else has the data directory already.
 */
import { nearest } from "../config.ts";
import { describe, type ErrorCode, RepriseError } from "../errors.ts";
import { printable } from "../printable.ts";
import { version } from "../version.ts";
import { commandHelp, generalHelp } from "./help.ts";
import type { Command } from "./command.ts";
import { parseCommand } from "./arguments.ts";
import { commandHere } from "./other-names.ts";

/** Loaded when one is run: what the others need, 60 files for benchmarks alone, would be a server's slower start. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  serve: async () => (await import("./serve.ts")).serve,
  cache: async () => (await import("./cache.ts")).cache,
  inspect: async () => (await import("./inspect.ts")).inspect,
  models: async () => (await import("./models.ts")).models,
  verify: async () => (await import("./verify.ts")).verify,
  bench: async () => (await import("./bench.ts")).bench,
};
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
    (name === undefined ? process.stderr : process.stdout).write(await everyCommandsHelp());
    return name === undefined ? 2 : 0;
  }
  if (!Object.hasOwn(commands, name)) {
    const known = Object.keys(commands);
    return fail(
      `reprise: no command is called "${name}"; there are: ${known.join(", ")}${commandHere(name) ?? nearest(name, known)}`,
      2,
    );
  }
  const command = await commands[name]!(); // it is there, by the line above
  if (typed.includes("--help") || typed.includes("-h")) {
    process.stdout.write(commandHelp(command, typed[0]));
    return 0;
  }
  try {
    const given = parseCommand(typed, process.env, command);
    for (const warning of given.warnings) process.stderr.write(`reprise ${name}: ${warning}\n`);
    return await command.run(given);
  } catch (error) {
    if (!(error instanceof RepriseError)) throw error;
    const lines = describe(error).split("\n");
    return fail(lines.map((line) => `reprise ${name}: ${printable(line)}`).join("\n"), exitCodes[error.code] ?? 1);
  }
}

async function everyCommandsHelp(): Promise<string> {
  return generalHelp(await Promise.all(Object.values(commands).map((load) => load())));
}

function fail(message: string, exitCode: number): number {
  process.stderr.write(`${message}\n`);
  return exitCode;
}
