/**
 * Arguments: what was typed becomes a command, a configuration and the command's own options; or one error that lists
 * every fault. Nothing is opened here.
 */
import { parseArgs } from "node:util";
import { type Config, flagName, nearest, resolveConfig, type SettingName, settingEntries } from "../config.ts";
import { RepriseError } from "../errors.ts";
import type { Command, CommandArguments, CommandOption } from "./command.ts";
import { calledHere, shortFlags } from "./other-names.ts";

/**
 * Parses what follows the command's name.
 *
 * @throws RepriseError BAD_CONFIG listing every fault.
 */
export function parseCommand(
  typed: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  command: Pick<Command, "name" | "options" | "settings" | "operands" | "variants">,
): CommandArguments {
  const { variant, rest } = splitVariant(typed, command);
  const { options: variantOptions, alone, operands } = command.variants?.[variant] ?? { options: {} };
  const wanted = operands ?? command.operands ?? [];
  const ownOptions: Readonly<Record<string, CommandOption>> = {
    ...(alone ? {} : command.options),
    ...variantOptions,
  };
  const settings = settingsOf(command);
  const byFlag = new Map<string, SettingName>(settings.map(([name]) => [flagName(name), name]));
  const switches = new Set([
    ...settings.flatMap(([name, { kind }]) => (kind.isSwitch ? [flagName(name)] : [])),
    ...Object.entries(ownOptions).flatMap(([name, { value }]) => (value === undefined ? [name] : [])),
  ]);
  const known = [
    ...byFlag.keys(),
    ...Object.keys(ownOptions),
    ...(command.settings === "none" ? [] : ["config"]),
    "help",
  ];

  const { tokens } = parseArgs({
    args: rest.map(withTwoDashes),
    strict: false,
    allowPositionals: true,
    tokens: true,
    options: Object.fromEntries(
      known.map((name) => {
        const short = shortOf(byFlag.get(name));
        return [name, { type: switches.has(name) || name === "help" ? "boolean" : "string", ...short }];
      }),
    ),
  });

  const kinds = new Map<string, string>(settings.map(([name, { kind }]) => [flagName(name), kind.name]));
  /** What stands behind an option in the help; `--config` is neither a setting nor an option of the command. */
  const valueOf = (name: string) => kinds.get(name) ?? ownOptions[name]?.value ?? "FILE.yaml";
  /** `--data-dir --port 0`: parseArgs takes whatever comes next. */
  const isNextOption = ({ value, inlineValue }: { value: string | undefined; inlineValue: boolean | undefined }) =>
    inlineValue !== true && value?.startsWith("--") === true && known.includes(value.slice(2));

  const faults: string[] = [];
  const flags: Partial<Record<SettingName, string[]>> = {};
  const own: Record<string, string> = {};
  const repeated: Record<string, string[]> = {};
  const given: string[] = [];
  let filePath: string | undefined;
  /** The place after an unknown option, where its value would stand: that is no second fault. */
  let valueOfUnknown = -1;
  for (const token of tokens) {
    if (token.kind === "positional" && token.index !== valueOfUnknown && given.push(token.value) > wanted.length)
      faults.push(`"${token.value}" is not expected here`);
    if (token.kind !== "option") continue;
    const { name } = token;
    const rawName = isManyLetters(rest[token.index]!) ? rest[token.index]! : token.rawName; // each token is of an argument
    if (!known.includes(name)) {
      const flags = known.map((each) => `--${each}`);
      faults.push(`${rawName}: no such option${calledHere(rawName, known) ?? nearest(token.rawName, flags)}`);
      valueOfUnknown = token.index + 1;
    } else if (switches.has(name) && token.value !== undefined) faults.push(`${rawName} takes no value`);
    else if (!switches.has(name) && (token.value === undefined || isNextOption(token))) {
      faults.push(`${rawName} needs a value: ${valueOf(name)}`);
      valueOfUnknown = token.index + 2; // what would stand behind the option that was taken for a value
    } else if (name === "config") filePath = token.value;
    else if (ownOptions[name]?.repeated) (repeated[name] ??= []).push(token.value ?? "true");
    else if (name in ownOptions) own[name] = token.value ?? "true";
    else (flags[byFlag.get(name)!] ??= []).push(token.value ?? "true"); // every other known name is a setting's
  }

  for (const missing of wanted.slice(given.length)) if (!missing.startsWith("[")) faults.push(`${missing} is missing`);

  const warnings: string[] = [];
  const sources = {
    flags,
    environment: command.settings === "none" ? {} : environment,
    filePath,
    onWarning: (line: string) => void warnings.push(line),
  };
  const config = withFaults(faults, () => resolveConfig(sources));
  return { config, variant, operands: given, own, repeated, typed, warnings };
}

/** `-ngl`, as llama-server has them, is one option and not three letters. */
function withTwoDashes(typed: string): string {
  return isManyLetters(typed) ? `-${typed}` : typed;
}

function isManyLetters(typed: string): boolean {
  return /^-[a-z]{2,}$/.test(typed);
}

function shortOf(name: SettingName | undefined): { readonly short?: string } {
  const short = name === undefined ? undefined : shortFlags[name];
  return short === undefined ? {} : { short };
}

/** The settings that are flags of the command. */
export function settingsOf({ settings }: Pick<Command, "settings">): ReturnType<typeof settingEntries> {
  if (settings === "none") return [];
  return settingEntries().filter(([name]) => settings === undefined || settings.includes(name));
}

/** The variant's name, which comes first, and what follows it. @throws RepriseError BAD_CONFIG naming the variants. */
function splitVariant(
  typed: readonly string[],
  { name, variants }: Pick<Command, "name" | "variants">,
): { variant: string; rest: readonly string[] } {
  if (variants === undefined) return { variant: "", rest: typed };
  const [variant, ...rest] = typed;
  if (Object.hasOwn(variants, "") && (variant === undefined || variant.startsWith("-")))
    return { variant: "", rest: typed };
  if (variant !== undefined && Object.hasOwn(variants, variant)) return { variant, rest };
  const known = Object.keys(variants).filter((name) => name !== "");
  const wrong =
    variant === undefined || variant.startsWith("-")
      ? `a name must follow "${name}"`
      : `"${variant}" is unknown${nearest(variant, known)}`;
  throw new RepriseError("BAD_CONFIG", `${wrong}; there are: ${known.join(", ")}`);
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
