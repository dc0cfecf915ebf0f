/** A command of the command line. */
import type { Config, SettingName } from "../config.ts";

/** An option that belongs to one command alone. */
export interface CommandOption {
  readonly value: string | undefined;
  readonly help: string;
  /** May be given several times; else the last one counts. */
  readonly repeated?: boolean;
  /** Understood, and told by another help than this command's. */
  readonly hidden?: boolean;
}

export interface CommandArguments {
  readonly config: Config;
  /** The variant that was asked for; "" for a command without variants. */
  readonly variant: string;
  /** What was given without a flag. */
  readonly operands: readonly string[];
  /** The command's own options that were given: their texts, "true" for those without a value. */
  readonly own: Readonly<Record<string, string>>;
  /** Those that may be repeated, in the order in which they were given. */
  readonly repeated: Readonly<Record<string, readonly string[]>>;
  /** All that followed the command's name, as it was typed. */
  readonly typed: readonly string[];
  /** What was left alone and is worth a line on stderr. */
  readonly warnings: readonly string[];
}

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
