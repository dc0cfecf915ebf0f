/**
 * Settings: one table says each one's flag, variable, key, kind, default and meaning.
 *
 * A setting named `dataDir` is `--data-dir` on the command line, `REPRISE_DATA_DIR` in the environment and `data-dir` in
 * the YAML file; the flag wins over the environment, the environment over the file, the file over the default. Everything
 * is parsed once; all faults are reported together. docs/configuration.md is generated from the table.
 */
import { readFileSync } from "node:fs";
import { availableParallelism, homedir } from "node:os";
import { join } from "node:path";
import { closest, distance } from "fastest-levenshtein";
import { parse as parseYaml } from "yaml";
import { formatBytes, parseBytes } from "./bytes.ts";
import { describe, RepriseError } from "./errors.ts";
import type { LogLevel } from "./log.ts";

/** How a setting's text becomes its value. `parse` throws an Error whose message says what is wrong. */
interface Kind<T> {
  readonly name: string;
  readonly list?: true;
  /** A flag without a value. */
  readonly isSwitch?: true;
  parse(text: string): T;
}

interface Setting<T> {
  readonly kind: Kind<T>;
  readonly default: T;
  /** How the default is printed, where the value itself depends on the machine. */
  readonly defaultText?: string;
  readonly help: string;
}

function setting<T>(kind: Kind<T>, defaultValue: T, help: string, options: { defaultText?: string } = {}): Setting<T> {
  return { kind, default: defaultValue, help, ...options };
}

export const settings = {
  model: setting(text("FILE.gguf"), "", "The model.", { defaultText: "the small one that ships" }),
  host: setting(text("ADDRESS"), "127.0.0.1", "Address to listen on. Other than loopback needs --api-key."),
  port: setting(integer("N", 0, 65_535), 8080, "Port to listen on; 0 takes a free one."),
  dataDir: setting(text("DIR"), join(homedir(), ".reprise"), "Where the disk tier, the secret and small files live.", {
    defaultText: "~/.reprise",
  }),
  memory: setting(
    bytes({ least: 64 * 1024 ** 2 }),
    2 * 1024 ** 3,
    "Size of the memory tier: the pool in /dev/shm (docs/memory.md).",
    {
      defaultText: "2GiB",
    },
  ),
  poolDir: setting(
    text("DIR"),
    "",
    "Where the pool's file lies: memory, such as another tmpfs, or a hugetlbfs mount for huge pages.",
    { defaultText: "/dev/shm" },
  ),
  disk: setting(
    drives({ least: 1024 ** 2 }),
    [{ directory: undefined, bytes: 20 * 1024 ** 3 }],
    "Size of the disk tier in the data directory, or in DIR; may be given several times, once for each drive. 0 turns it off.",
    {
      defaultText: "20GiB",
    },
  ),
  context: setting(integer("N", 0, 1 << 24), 0, "Tokens of prompt and answer that one request may have.", {
    defaultText: "the model's own, 8192 at most",
  }),
  slots: setting(integer("N", 1, 255), 4, "Requests that run at the same time."),
  queue: setting(integer("N", 0, 100_000), 64, "Requests that may wait for a slot; one more is answered 429."),
  threads: setting(integer("N", 1, 1024), availableParallelism(), "Threads that compute.", {
    defaultText: "one per core",
  }),
  gpu: setting(oneOf("auto", "off"), "auto", "Use a GPU when libraries for one are installed."),
  gpuLayers: setting(integer("N", 0, 100_000), 100_000, "Layers to put on the GPU.", { defaultText: "all" }),
  deterministic: setting(
    onOff(),
    false,
    "The same text for the same prompt, bit for bit, whatever is cached and whoever else is served. Slower.",
  ),
  socket: setting(text("PATH"), "", "Unix socket where engines reach the cache.", {
    defaultText: "cache.sock in the data directory",
  }),
  metricsPort: setting<number | undefined>(
    integer("N", 0, 65_535),
    undefined,
    "Port where `reprise cache` gives its figures (/metrics, /health, /cache/stats); 0 takes a free one.",
    { defaultText: "none" },
  ),
  stopWhenUnused: setting(
    integer("SECONDS", 0, 10_000_000),
    0,
    "`reprise cache` ends by itself when no engine has been connected for this long; 0 is never.",
    { defaultText: "never" },
  ),
  apiKey: setting(list("KEY"), [], "A key that clients must send; may be given several times. Each key is a tenant."),
  corsOrigin: setting(list("ORIGIN"), [], "An origin whose pages may call the API; may be given several times."),
  logLevel: setting(oneOf<LogLevel>("debug", "info", "warn", "error"), "info", "What to print on stderr."),
} as const;

type Settings = typeof settings;
export type SettingName = keyof Settings;

/** Every setting, parsed. */
export type Config = { readonly [Name in SettingName]: Settings[Name] extends Setting<infer T> ? T : never };

/** Values as they were typed: from flags, the environment or the file. */
type Given = Partial<Record<SettingName, string | readonly string[]>>;

/** `--data-dir` without the dashes; also the key in the YAML file. */
export function flagName(name: string): string {
  return name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

export function environmentName(name: string): string {
  return `REPRISE_${flagName(name).replaceAll("-", "_").toUpperCase()}`;
}

/**
 * The configuration from all three sources.
 *
 * @throws RepriseError BAD_CONFIG listing every fault, one a line.
 */
export function resolveConfig(sources: {
  flags: Given;
  environment: Readonly<Record<string, string | undefined>>;
  filePath?: string | undefined;
}): Config {
  const faults: string[] = [];
  const file = sources.filePath === undefined ? {} : readFile(sources.filePath, faults);
  const environment = fromEnvironment(sources.environment, faults);

  const config: Record<string, unknown> = {};
  for (const [name, { kind, default: fallback }] of settingEntries()) {
    const [given, from] =
      sources.flags[name] !== undefined
        ? [sources.flags[name], `--${flagName(name)}`]
        : environment[name] !== undefined
          ? [environment[name], environmentName(name)]
          : [file[name], `${flagName(name)} in ${sources.filePath}`];
    config[name] = given === undefined ? fallback : parseGiven(kind, given, from, faults);
  }

  if (faults.length > 0) throw new RepriseError("BAD_CONFIG", faults.join("\n"));
  return Object.freeze(config) as Config;
}

export const settingNames = Object.keys(settings) as readonly SettingName[];

/** The table's rows, with names typed. */
export function settingEntries(): [SettingName, Setting<unknown>][] {
  return Object.entries(settings) as [SettingName, Setting<unknown>][];
}

function parseGiven(kind: Kind<unknown>, given: string | readonly string[], from: string, faults: string[]): unknown {
  const texts = typeof given === "string" ? [given] : given;
  const values = (kind.list ? texts : [texts.at(-1) ?? ""]).map((item) => {
    try {
      return kind.parse(item);
    } catch (error) {
      faults.push(`${from}: ${describe(error)}`);
      return undefined;
    }
  });
  return kind.list ? values.flat() : values[0];
}

function readFile(path: string, faults: string[]): Given {
  let parsed: unknown;
  try {
    parsed = parseYaml(readFileSync(path, "utf8"));
  } catch (error) {
    faults.push(`--config ${path}: cannot be read: ${describe(error)}`);
    return {};
  }
  if (parsed === null || parsed === undefined) return {};
  if (typeof parsed !== "object" || Array.isArray(parsed)) {
    faults.push(`--config ${path}: must be a map of settings, such as "memory: 4GiB"`);
    return {};
  }
  const byKey = new Map(settingEntries().map(([name]) => [flagName(name), name]));
  const given: Given = {};
  for (const [key, value] of Object.entries(parsed as Record<string, unknown>)) {
    const name = byKey.get(key);
    if (name === undefined)
      faults.push(`--config ${path}: no setting is called "${key}"${nearest(key, [...byKey.keys()])}`);
    else if (Array.isArray(value)) given[name] = value.map(String);
    else if (typeof value === "object" && value !== null)
      faults.push(`--config ${path}: ${key} must be a value or a list`);
    else given[name] = String(value);
  }
  return given;
}

function fromEnvironment(environment: Readonly<Record<string, string | undefined>>, faults: string[]): Given {
  const byVariable = new Map(settingEntries().map(([name]) => [environmentName(name), name]));
  const given: Given = {};
  for (const [variable, value] of Object.entries(environment)) {
    if (!variable.startsWith("REPRISE_") || value === undefined) continue;
    const name = byVariable.get(variable);
    if (name === undefined) faults.push(`${variable}: no such setting${nearest(variable, [...byVariable.keys()])}`);
    else given[name] = settings[name].kind.list ? value.split(",") : value;
  }
  return given;
}

/** `; did you mean "x"?` for the known name that differs least, when it differs little. */
export function nearest(given: string, known: readonly string[]): string {
  const best = closest(given, known);
  return distance(given, best) <= Math.max(2, given.length / 3) ? `; did you mean "${best}"?` : "";
}

function text(name: string): Kind<string> {
  return {
    name,
    parse(given) {
      if (given === "") throw new Error("must not be empty");
      return given;
    },
  };
}

function list(name: string): Kind<readonly string[]> {
  return {
    name,
    list: true,
    parse(given) {
      if (given.trim() === "") throw new Error("must not be empty");
      return [given];
    },
  };
}

function integer(name: string, least: number, most: number): Kind<number> {
  return {
    name,
    parse(given) {
      const value = /^\d+$/.test(given) ? Number(given) : Number.NaN;
      if (!(value >= least && value <= most))
        throw new Error(`"${given}" is not a whole number from ${least} to ${most}`);
      return value;
    },
  };
}

/** A size; `least` is the smallest that works, and 0 is allowed where it turns something off. */
function bytes(options: { least: number; orZero?: true }): Kind<number> {
  return {
    name: "SIZE",
    parse(given) {
      const value = parseBytes(given);
      if (value >= options.least || (value === 0 && options.orZero)) return value;
      throw new Error(`"${given}" is less than ${formatBytes(options.least)}, the smallest that works`);
    },
  };
}

/** Where the disk tier may keep how much. */
export interface DiskSetting {
  /** The data directory's own when undefined. */
  readonly directory: string | undefined;
  readonly bytes: number;
}

/** `20GiB` or `/mnt/nvme1:1TiB`; the size follows the last colon. */
function drives(options: { least: number }): Kind<readonly DiskSetting[]> {
  const size = bytes({ ...options, orZero: true });
  return {
    name: "SIZE or DIR:SIZE",
    list: true,
    parse(given) {
      const colon = given.lastIndexOf(":");
      if (colon === 0) throw new Error(`"${given}" names no directory before its colon`);
      const directory = colon === -1 ? undefined : given.slice(0, colon);
      return [{ directory, bytes: size.parse(given.slice(colon + 1)) }];
    },
  };
}

function oneOf<Choice extends string>(...choices: readonly Choice[]): Kind<Choice> {
  return {
    name: choices.join("|"),
    parse(given) {
      const choice = choices.find((each) => each === given);
      if (choice === undefined) throw new Error(`"${given}" is none of ${choices.join(", ")}`);
      return choice;
    },
  };
}

function onOff(): Kind<boolean> {
  return {
    name: "",
    isSwitch: true,
    parse(given) {
      if (given === "true" || given === "1") return true;
      if (given === "false" || given === "0") return false;
      throw new Error(`"${given}" is neither true nor false`);
    },
  };
}
