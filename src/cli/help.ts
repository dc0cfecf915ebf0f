/** The texts of `--help`, made from the table of settings, and docs/configuration.md, made from the same table. */
import { environmentName, flagName, settingEntries } from "../config.ts";
import { settingsOf } from "./arguments.ts";
import type { Command } from "./command.ts";
import { shortFlags } from "./other-names.ts";

export function generalHelp(commands: readonly Command[]): string {
  return [
    "Reprise keeps the KV cache of what a language model has read, so that no text is read twice.",
    "",
    "Usage: reprise COMMAND [OPTION …]",
    "",
    ...commands.map(({ name, summary }) => `  ${name.padEnd(10)}${summary}`),
    "",
    "reprise COMMAND --help lists the options of a command; reprise --version prints the version.",
    "",
  ].join("\n");
}

/** @param typed what followed the command's name: help about a variant, where it names one. */
export function commandHelp(command: Command, typed?: string): string {
  const variants = Object.entries(command.variants ?? {});
  const [variantName, variant] = variants.find(([name]) => name !== "" && name === typed) ?? [];
  const optional = command.variants?.[""];
  const named = variants.filter(([name]) => name !== "");
  const rows: (readonly [string, string])[] = [
    ...optionRows((variant ?? optional)?.options ?? {}),
    ...(variant?.alone ? [] : optionRows(command.options)),
  ];
  if (command.settings !== "none") {
    rows.push(...settingRows(command).map(({ flag, help, fallback }) => [flag, `${help}${fallback}`] as const));
    rows.push(["--config FILE.yaml", "Read settings from a file; flags and REPRISE_… variables win over it."]);
  }
  return [
    `reprise ${command.name}${variantName === undefined ? "" : ` ${variantName}`}: ${variant?.summary ?? command.summary}`,
    "",
    ...(command.operands === undefined
      ? []
      : [`Usage: reprise ${command.name} ${command.operands.join(" ")} [OPTION …]`, ""]),
    ...(variant !== undefined || variants.length === 0
      ? []
      : [
          `Usage: reprise ${command.name} ${optional === undefined ? "NAME" : "[NAME]"} [OPTION …]; NAME --help lists the options of that name.`,
          "",
          ...named.map(([name, { summary }]) => `  ${name.padEnd(26)}${summary}`),
          "",
        ]),
    ...rows.flatMap(([flag, help]) =>
      flag.length < 26 ? [`  ${flag.padEnd(26)}${help}`] : [`  ${flag}`, `${" ".repeat(28)}${help}`],
    ),
    "",
  ].join("\n");
}

/** docs/configuration.md; a test keeps the file equal to this. */
export function configurationDocs(): string {
  const rows = settingEntries().map(([name, { kind, defaultText, default: value, help }]) => {
    const short = shortFlags[name] === undefined ? "" : `\`-${shortFlags[name]}\`, `;
    const flag = `${short}\`--${flagName(name)}${kind.name ? ` ${kind.name}` : ""}\``.replaceAll("|", "\\|");
    return `| ${flag} | \`${environmentName(name)}\` | ${defaultText ?? shown(value)} | ${help} |`;
  });
  return [
    "# Configuration",
    "",
    "Each setting is a flag, an environment variable and a key in the YAML file given with `--config FILE.yaml` (the flag's",
    "name without dashes in front, such as `data-dir: /var/lib/reprise`). The flag wins over the environment, the environment over",
    "the file, the file over the default. A list is written as repeated flags, as a variable with commas and no spaces, or as a YAML",
    "list; the source that wins replaces the whole list. Sizes are written `512MiB`, `2GiB`, `20GB`. All faults are reported together,",
    "with exit code 2.",
    "",
    "Values in the file are taken as they are written: `00123` keeps its zeros, `true` is the word. These are faults: a setting without",
    "a value, an unknown setting, one that is given twice, an empty list, and a tag. Unknown variables that begin with `REPRISE_` are",
    "ignored, with one warning. Those that Kubernetes makes for a Service named `reprise` or `reprise-…` (`REPRISE_SERVICE_HOST`,",
    "`REPRISE_PORT=tcp://…`) are ignored without one. For keys see [keys.md](keys.md).",
    "",
    "| flag | environment | default | meaning |",
    "| --- | --- | --- | --- |",
    ...rows,
    "",
    "This page is generated from `src/config.ts`; a test keeps them equal.",
    "",
  ].join("\n");
}

function optionRows(options: Command["options"]): [string, string][] {
  return Object.entries(options)
    .filter(([, { hidden }]) => !hidden)
    .map(([name, { value, help }]) => [`--${name}${value ? ` ${value}` : ""}`, help]);
}

function settingRows(command: Command): { flag: string; help: string; fallback: string }[] {
  return settingsOf(command).map(([name, { kind, defaultText, default: value, help }]) => ({
    flag: `${shortFlags[name] === undefined ? "" : `-${shortFlags[name]}, `}--${flagName(name)}${kind.name ? ` ${kind.name}` : ""}`,
    help,
    fallback: kind.isSwitch ? "" : ` [${defaultText ?? shown(value)}]`,
  }));
}

function shown(value: unknown): string {
  if (Array.isArray(value)) return "none";
  if (value === false) return "off";
  return String(value);
}
