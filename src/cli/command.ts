/** A command of the command line. */
import type { SettingName } from "../config.ts";
import type { CommandArguments, CommandOption } from "./arguments.ts";

/** One of the things that a command does, such as one benchmark. */
export interface CommandVariant {
  readonly summary: string;
  /** Options of this variant alone, beside the command's. */
  readonly options: Readonly<Record<string, CommandOption>>;
  /** True: the command's own options are not for this variant. */
  readonly alone?: true;
  /** What may be given without a flag, in this order. In brackets: may be left out. */
  readonly operands?: readonly string[];
}

export interface Command {
  readonly name: string;
  /** One sentence for the list of commands. */
  readonly summary: string;
  /** Options that only this command has, beside the settings. */
  readonly options: Readonly<Record<string, CommandOption>>;
  /** The settings that are flags of this command; "none": it reads no settings at all. Every one unless given. */
  readonly settings?: "none" | readonly SettingName[];
  /** What may be given without a flag, in this order. In brackets: may be left out. */
  readonly operands?: readonly string[];
  /**
   * What the command can do, by the name that must follow the command's own; undefined: no name follows. The variant
   * called "" is meant where none follows.
   */
  readonly variants?: Readonly<Record<string, CommandVariant>>;
  /** Runs to the end. @returns the exit code. @throws RepriseError */
  run(given: CommandArguments): Promise<number>;
}
