/** A command of the command line. */
import type { CommandArguments, CommandOption } from "./arguments.ts";

export interface Command {
  readonly name: string;
  /** One sentence for the list of commands. */
  readonly summary: string;
  /** Options that only this command has, beside the settings. */
  readonly options: Readonly<Record<string, CommandOption>>;
  /** Runs to the end. @returns the exit code. @throws RepriseError */
  run(given: CommandArguments): Promise<number>;
}
