/** `reprise serve`: the cache, the engine and the HTTP server in one command, until a signal ends it. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { formatBytes } from "../bytes.ts";
import { type Config, settingNames } from "../config.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import type { EngineSettings } from "../engines/llama/engine-settings.ts";
import { LlamaEngine } from "../engines/llama/server/engine.ts";
import type { Engine, ModelInfo } from "../engine.ts";
import { createApp } from "../http/app/app.ts";
import { listen } from "../http/listen.ts";
import { createLog, type Log } from "../log.ts";
import { version } from "../version.ts";
import { hostsAllowedBy, mustBePrivate, mustKnowPages, readKeys } from "./access.ts";
import { CacheHost } from "./cache-host.ts";
import { readChatTemplate } from "./chat-template-file.ts";
import type { Command } from "./command.ts";
import { showProgress } from "./progress.ts";
import { endRequested } from "./signals.ts";

/** How long bringing a text that is to be pinned into memory may take. */
const pinMs = 10_000;

export const serve: Command = {
  name: "serve",
  summary: "runs the model behind an OpenAI-compatible server that reads each text once",
  options: {},
  settings: settingNames.filter((name) => name !== "metricsPort" && name !== "stopWhenUnused"),
  operands: ["[FILE.gguf]"],

  async run({ config: given, operands }) {
    const config = withModel(given, operands[0]);
    const log = createLog({ level: config.logLevel });
    const keys = readKeys(config);
    mustBePrivate(config.host, keys.apiKeys, "api-key");
    mustKnowPages(config.corsOrigin, keys.apiKeys);
    const modelPath = findModel(config);
    const chatTemplate = readChatTemplate(config);
    const ended = endRequested(log);

    await using host = await CacheHost.open({ config, log });
    using progress = showProgress(`Loading ${modelPath}`);
    await using engine = startEngine({
      config,
      modelPath,
      chatTemplate,
      host,
      log,
      onProgress: (share) => progress.update(share),
    });
    await using server = await listen({
      app: createApp({
        engine,
        cacheStats: () => cacheStats(host, engine),
        cacheFigures: host.figures(),
        pin: (text, tokens, seconds) =>
          host.cache.pin({ ...text, adapter: "" }, tokens, seconds, { deadlineMs: pinMs }),
        resizeMemory: (capacityBytes) => host.resize(capacityBytes),
        ...keys,
        openMetrics: config.metrics === "open",
        serverSecret: host.secret,
        log: log.named("http"),
        version,
        corsOrigins: config.corsOrigin,
        ...hostsAllowedBy(config, keys.apiKeys),
      }),
      log: log.named("http"),
      host: config.host,
      port: config.port,
    });

    const outcome = await Promise.race([engine.ready.then(() => "ready" as const), ended]);
    progress.end();
    if (outcome === "ready") {
      process.stdout.write(readyMessage(server.url, await engine.ready, config));
      await ended;
    }
    await server.close({ graceMs: config.drain * 1000 });
    return 0;
  },
};

/** What is there now, where to look at it, and what of the machine it may take. The first line is for programs too. */
function readyMessage(url: string, model: ModelInfo, { sequences, memory, disk, dataDir }: Config): string {
  const context = `${model.contextTokens.toLocaleString("en")} tokens of context`;
  const diskBytes = disk.reduce((sum, { bytes }) => sum + bytes, 0);
  const below = diskBytes === 0 ? "" : `, ${formatBytes(diskBytes)} on disk (${dataDir})`;
  return [
    `Reprise is ready at ${url}`,
    `  model   ${model.name}: ${context}, ${sequences} ${sequences === 1 ? "request" : "requests"} at a time`,
    `  page    ${url}/`,
    `  room    up to ${formatBytes(memory)} of memory${below}`,
    "",
  ].join("\n");
}

/** The engine as this configuration wants it, connected to the host's cache. */
export function startEngine(parts: {
  config: Config;
  modelPath: string;
  chatTemplate?: string | undefined;
  host: CacheHost;
  log: Log;
  onProgress?: (share: number) => void;
}): LlamaEngine {
  const { config, host } = parts;
  return LlamaEngine.start({
    modelPath: parts.modelPath,
    chatTemplate: parts.chatTemplate,
    settings: engineSettings(config, host.socketPath),
    dataDirectory: resolve(config.dataDir),
    maxWaiting: config.queue,
    log: parts.log.named("engine"),
    ...(parts.onProgress === undefined ? {} : { onProgress: parts.onProgress }),
  });
}

export function engineSettings(config: Config, socketPath: string): EngineSettings {
  const { context: contextTokens, sequences, threads, gpu, gpuLayers, deterministic } = config;
  return { contextTokens, sequences, threads, gpu, gpuLayers, deterministic, socketPath };
}

/** `reprise serve FILE.gguf` is `reprise serve --model FILE.gguf`. @throws RepriseError BAD_CONFIG when both are given */
function withModel(config: Config, operand: string | undefined): Config {
  if (operand === undefined) return config;
  if (config.model !== "" && config.model !== operand)
    throw new RepriseError("BAD_CONFIG", `two models are given, ${operand} and ${config.model}: name one`);
  return { ...config, model: operand };
}

/** The model that was asked for, else the one that ships. @throws RepriseError MODEL_NOT_FOUND */
export function findModel(config: Pick<Config, "model">): string {
  const path =
    config.model === ""
      ? fileURLToPath(new URL("../../models/reprise-22m-q8_0.gguf", import.meta.url))
      : resolve(config.model);
  try {
    if (statSync(path).isFile()) return path;
  } catch (error) {
    const why = codeOf(error) === "ENOENT" ? "there is no such file" : describe(error);
    throw new RepriseError("MODEL_NOT_FOUND", `cannot read the model ${path}: ${why}`);
  }
  throw new RepriseError("MODEL_NOT_FOUND", `--model ${path} is not a file; give the path of a .gguf file`);
}

/** What `/cache/stats` answers: of the chunks that a power cut would lose, the engine has some as well. */
function cacheStats(host: CacheHost, engine: Engine): object {
  const stats = host.stats();
  const engineStats = engine.stats();
  return { ...stats, unsavedChunks: engineStats.unsavedChunks + stats.unsavedChunks, engine: engineStats };
}
