/**
 * Arguments: what was typed becomes a command, a configuration and the command's own options; or one error that lists
 * every fault. Nothing is opened here.
 */
import { parseArgs } from "node:util";
import { type Config, flagName, nearest, resolveConfig, type SettingName, settingEntries } from "../config.ts";
import { RepriseError } from "../errors.ts";

/** An option that belongs to one command alone. */
export interface CommandOption {
  readonly value: string | undefined;
  readonly help: string;
}

export interface CommandArguments {
  readonly config: Config;
  /** The command's own options that were given: their texts, "true" for those without a value. */
  readonly own: Readonly<Record<string, string>>;
}

/**
 * Parses what follows the command's name.
 *
 * @throws RepriseError BAD_CONFIG listing every fault.
 */
export function parseCommand(
  typed: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  ownOptions: Readonly<Record<string, CommandOption>>,
): CommandArguments {
  const byFlag = new Map<string, SettingName>(settingEntries().map(([name]) => [flagName(name), name]));
  const switches = new Set([
    ...settingEntries().flatMap(([name, { kind }]) => (kind.isSwitch ? [flagName(name)] : [])),
    ...Object.entries(ownOptions).flatMap(([name, { value }]) => (value === undefined ? [name] : [])),
  ]);
  const known = [...byFlag.keys(), ...Object.keys(ownOptions), "config", "help"];

  const { tokens } = parseArgs({
    args: [...typed],
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      known.map((name) => [name, { type: switches.has(name) || name === "help" ? "boolean" : "string" }]),
    ),
  });

  const faults: string[] = [];
  const flags: Partial<Record<SettingName, string[]>> = {};
  const own: Record<string, string> = {};
  let filePath: string | undefined;
  for (const token of tokens) {
    if (token.kind === "positional") faults.push(`"${token.value}" is not expected here`);
    if (token.kind !== "option") continue;
    const { name, rawName } = token;
    if (!known.includes(name))
      faults.push(
        `${rawName}: no such option${nearest(
          rawName,
          known.map((each) => `--${each}`),
        )}`,
      );
    else if (switches.has(name) && token.value !== undefined) faults.push(`${rawName} takes no value`);
    else if (!switches.has(name) && token.value === undefined) faults.push(`${rawName} needs a value`);
    else if (name === "config") filePath = token.value;
    else if (name in ownOptions) own[name] = token.value ?? "true";
    else (flags[byFlag.get(name)!] ??= []).push(token.value ?? "true"); // every other known name is a setting's
  }

  return { config: withFaults(faults, () => resolveConfig({ flags, environment, filePath })), own };
}

/** Adds faults found before `resolve` to those that it finds. */
function withFaults(faults: readonly string[], resolve: () => Config): Config {
  try {
    const config = resolve();
    if (faults.length === 0) return config;
  } catch (error) {
    if (error instanceof RepriseError) throw new RepriseError("BAD_CONFIG", [...faults, error.message].join("\n"));
    throw error;
  }
  throw new RepriseError("BAD_CONFIG", faults.join("\n"));
}
