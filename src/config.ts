/**
 * Settings: one table says each one's flag, variable, key, kind, default and meaning.
 *
 * A setting named `dataDir` is `--data-dir` on the command line, `REPRISE_DATA_DIR` in the environment and `data-dir` in
 * the YAML file; the flag wins over the environment, the environment over the file, the file over the default. Everything
 * is parsed once; all faults are reported together. docs/configuration.md is generated from the table. How texts are read
 * from file and environment, and what they may be, is in config/.
 */
import { join } from "node:path";
import { closest, distance } from "fastest-levenshtein";
import { readVariables, unknownWarning, variablePrefix } from "./config/environment.ts";
import { readYaml } from "./config/file.ts";
import {
  address,
  bytes,
  drives,
  home,
  hostName,
  integer,
  key,
  listenAddress,
  type Kind,
  list,
  oneOf,
  onOff,
  origin,
  path,
  paths,
} from "./config/kinds.ts";
import { describe, RepriseError } from "./errors.ts";
import type { LogLevel } from "./log.ts";

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
  model: setting(
    path("FILE.gguf or NAME"),
    "",
    "The model: a file, or the name of one that is on this machine already (`reprise models` lists them).",
    { defaultText: "the small one that ships" },
  ),
  modelsDir: setting(paths("DIR"), [], "A folder to search for models by name; may be given several times."),
  chatTemplate: setting(
    path("FILE"),
    "",
    "A Jinja template for chats instead of the model's own; also for models that have none (docs/http.md).",
    { defaultText: "the model's own" },
  ),
  host: setting(address(), "127.0.0.1", "Address to listen on. Any other than loopback needs keys (docs/keys.md)."),
  port: setting(integer("N", 0, 65_535), 8080, "Port to listen on; 0 takes a free one."),
  dataDir: setting(path("DIR"), join(home(), ".reprise"), "Where the disk tier, the secret and small files are kept.", {
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
    path("DIR"),
    "",
    "Where the pool's file is kept. This must be memory: another tmpfs, or a hugetlbfs mount for huge pages.",
    { defaultText: "/dev/shm" },
  ),
  disk: setting(
    drives({ least: 1024 ** 2 }),
    [{ directory: undefined, bytes: 20 * 1024 ** 3 }],
    "Size of the disk tier, in the data directory or in DIR; may be given several times, once for each drive. 0 turns it off.",
    {
      defaultText: "20GiB",
    },
  ),
  tier: setting(
    list("STORE"),
    [],
    "A store that other hosts share, such as valkey://HOST:6379, s3://BUCKET, nixl://posix/FOLDER or mooncake://MASTER, or another host's cache, peer://HOST:PORT (docs/shared-tiers.md); may be given several times, the fastest first.",
  ),
  tierKeyFile: setting(
    path("FILE"),
    "",
    "Keys that seal what goes to shared stores, one a line, the same on all hosts (docs/shared-tiers.md).",
    { defaultText: "none: nothing is sealed" },
  ),
  mooncakePython: setting(
    path("PROGRAM"),
    "python3",
    "The Python that has Mooncake's wheel, for --tier mooncake://… (docs/shared-tiers.md).",
  ),
  listen: setting(
    listenAddress(),
    "",
    "Where other hosts read from this one's cache (docs/shared-tiers.md). Any other than loopback needs a certificate and a token; port 0 takes a free one.",
    { defaultText: "nowhere" },
  ),
  listenCert: setting(path("FILE"), "", "Certificate that --listen shows, PEM, with those that signed it behind it."),
  listenKey: setting(path("FILE"), "", "Its private key, PEM; a file that others cannot read."),
  listenCompress: setting(
    oneOf("lossless", "none"),
    "lossless",
    "What --listen does for hosts that ask for it with compress=lossless: packs what it sends them, with two threads at most, or nothing (docs/shared-tiers.md).",
  ),
  tokenFile: setting(
    path("FILE"),
    "",
    "A file with the token that other hosts must show at --listen, which others cannot read.",
  ),
  scrubDays: setting(
    integer("DAYS", 0, 3650),
    7,
    "Days between two checks of the whole disk tier for rotten bytes; 0 is never. In between an idle server does not touch the disk.",
  ),
  context: setting<number | undefined>(
    integer("N", 1, 1 << 24),
    undefined,
    "Tokens of prompt and answer that one request may have.",
    { defaultText: "the model's own, 8192 at most" },
  ),
  sequences: setting(integer("N", 1, 255), 4, "Requests that run at the same time."),
  queue: setting(integer("N", 0, 100_000), 64, "Requests that may wait for a sequence; the next one gets a 429."),
  threads: setting<number | undefined>(
    integer("N", 1, 1024),
    undefined,
    "Threads that compute, at most. More than there are processors are used only with --deterministic.",
    {
      defaultText: "one per physical core that it may use",
    },
  ),
  maxGap: setting<number | undefined>(
    integer("MS", 1, 60_000),
    undefined,
    "Milliseconds at most between two tokens of an answer while other prompts are read; not with --deterministic. Less makes prompts take longer.",
    { defaultText: "120, or 80 on a GPU" },
  ),
  gpu: setting(
    oneOf("auto", "on", "off"),
    "auto",
    "Use a GPU (docs/gpu.md): when libraries for one are installed and a trial shows that they work, or else end with an error, or never.",
  ),
  gpuLayers: setting<number | undefined>(integer("N", 0, 100_000), undefined, "Layers to put on the GPU.", {
    defaultText: "all",
  }),
  llamaLib: setting(
    path("DIR"),
    "",
    "A folder with llama.cpp's libraries that you built yourself (docs/gpu.md). Nobody else may be able to write there.",
    { defaultText: "the installed packages" },
  ),
  deterministic: setting(
    onOff(),
    false,
    "Answer the same prompt with the same text, bit for bit, whatever is cached and whoever else is served. Slower.",
  ),
  draft: setting(
    oneOf("off", "lookup"),
    "off",
    "Guess the next tokens of an answer, and compute several in one step (docs/drafts.md): not at all, or from what followed the same words in prompt and answer.",
  ),
  socket: setting(path("PATH"), "", "Unix socket where engines reach the cache.", {
    defaultText: "cache.sock in the data directory",
  }),
  metricsPort: setting<number | undefined>(
    integer("N", 0, 65_535),
    undefined,
    "Port where `reprise cache` serves its figures (/metrics, /health, /cache/stats); 0 takes a free one.",
    { defaultText: "none" },
  ),
  stopWhenUnused: setting(
    integer("SECONDS", 0, 10_000_000),
    0,
    "End `reprise cache` when no engine has been connected for this long; 0 is never.",
    { defaultText: "never" },
  ),
  apiKey: setting(
    key("KEY"),
    [],
    "A key that clients must send; may be given several times. Each key is a tenant. Anyone who lists processes sees flags: prefer a file.",
  ),
  apiKeyFile: setting(
    paths("FILE"),
    [],
    "A file of such keys, one per line, that others cannot read (docs/keys.md); may be given several times.",
  ),
  adminKey: setting(
    key("KEY"),
    [],
    "A key for what concerns all tenants: /metrics, all of /cache/stats, /cache/resize; may be given several times.",
  ),
  adminKeyFile: setting(paths("FILE"), [], "A file of such keys, as --api-key-file; may be given several times."),
  metrics: setting(
    oneOf("admin", "open"),
    "admin",
    "Who may read /metrics when there are keys: holders of an admin key, or everybody.",
  ),
  allowedHost: setting(
    hostName(),
    [],
    "Another name under which a loopback server without keys answers, such as a proxy's; may be given several times.",
    { defaultText: "loopback's names" },
  ),
  corsOrigin: setting(
    origin(),
    [],
    "An origin whose pages may call the API, such as https://app.example, or * for any (needs --api-key); may be given several times.",
  ),
  drain: setting(
    integer("SECONDS", 0, 86_400),
    5,
    "How long running answers may go on after SIGTERM or Ctrl-C; those that have not ended by then are cut off with an error.",
  ),
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
  return `${variablePrefix}${flagName(name).replaceAll("-", "_").toUpperCase()}`;
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
  /** Told, in one line, of variables that look like settings and are none. */
  onWarning?: (line: string) => void;
}): Config {
  const faults: string[] = [];
  const file = sources.filePath === undefined ? {} : fromFile(sources.filePath, faults);
  const environment = fromEnvironment(sources.environment, sources.onWarning ?? (() => {}));

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

function fromFile(path: string, faults: string[]): Given {
  const typed = readYaml(path);
  faults.push(...typed.faults.map((fault) => `--config ${path}: ${fault}`));
  const byKey = new Map(settingEntries().map(([name]) => [flagName(name), name]));
  const given: Given = {};
  for (const [key, value] of typed.values) {
    const name = byKey.get(key);
    if (name === undefined)
      faults.push(`--config ${path}: no setting is called "${key}"${nearest(key, [...byKey.keys()])}`);
    else if (typeof value !== "string" && !settings[name].kind.list)
      faults.push(`--config ${path}: ${key} takes one value and no list`);
    else given[name] = value;
  }
  return given;
}

function fromEnvironment(
  environment: Readonly<Record<string, string | undefined>>,
  onWarning: (line: string) => void,
): Given {
  const byVariable = new Map(settingEntries().map(([name]) => [environmentName(name), name]));
  const { known, unknown } = readVariables(environment, (variable) => byVariable.has(variable));
  if (unknown.length > 0) onWarning(unknownWarning(unknown, (variable) => meantBy(variable, [...byVariable.keys()])));
  const given: Given = {};
  for (const [variable, value] of known) {
    const name = byVariable.get(variable)!; // only those are known
    given[name] = settings[name].kind.list ? value.split(",") : value;
  }
  return given;
}

/** `; did you mean "x"?` for the known name that differs least, when it differs little. */
export function nearest(given: string, known: readonly string[]): string {
  const best = closest(given, known);
  return distance(given, best) <= Math.max(2, given.length / 3) ? `; did you mean "${best}"?` : "";
}

/** The same of a variable: what all of them begin with makes none of them likelier. */
function meantBy(variable: string, known: readonly string[]): string {
  const endings = known.map((each) => each.slice(variablePrefix.length));
  const hint = nearest(variable.slice(variablePrefix.length), endings);
  return hint === "" ? "" : ` (${hint.slice(2).replace('"', `"${variablePrefix}`)})`;
}
