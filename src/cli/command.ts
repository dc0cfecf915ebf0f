/** A command of the command line. */
import type { CommandArguments, CommandOption } from "./arguments.ts";

/** One of the things that a command does, such as one benchmark. */
export interface CommandVariant {
  readonly summary: string;
  /** Options of this variant alone, beside the command's. */
  readonly options: Readonly<Record<string, CommandOption>>;
  /** True: the command's own options are not for this variant. */
  readonly alone?: true;
  /** What must be given without a flag, in this order. */
  readonly operands?: readonly string[];
}

export interface Command {
  readonly name: string;
  /** One sentence for the list of commands. */
  readonly summary: string;
  /** Options that only this command has, beside the settings. */
  readonly options: Readonly<Record<string, CommandOption>>;
  /** "none": a command that neither opens a cache nor serves, and takes no setting as a flag. */
  readonly settings?: "none";
  /** What the command can do, by the name that must follow the command's own; undefined: no name follows. */
  readonly variants?: Readonly<Record<string, CommandVariant>>;
  /** Runs to the end. @returns the exit code. @throws RepriseError */
  run(given: CommandArguments): Promise<number>;
}
