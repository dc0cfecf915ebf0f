/** `reprise serve`: the cache, the engine and the HTTP server in one command, until a signal ends it. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { type Config, settingNames } from "../config.ts";
import { describe, RepriseError } from "../errors.ts";
import { LlamaEngine } from "../engines/llama/engine.ts";
import type { Engine } from "../engine.ts";
import { createApp } from "../http/app.ts";
import { listen } from "../http/listen.ts";
import { createLog, type Log } from "../log.ts";
import { version } from "../version.ts";
import { hostsAllowedBy, mustBePrivate } from "./access.ts";
import { CacheHost } from "./cache-host.ts";
import type { Command } from "./command.ts";
import { showProgress } from "./progress.ts";
import { endRequested } from "./signals.ts";

export const serve: Command = {
  name: "serve",
  summary: "runs the model behind an OpenAI-compatible server that reads each text once",
  options: {},
  settings: settingNames.filter((name) => name !== "metricsPort" && name !== "stopWhenUnused"),

  async run({ config }) {
    const log = createLog({ level: config.logLevel });
    mustBePrivate(config);
    const modelPath = findModel(config);
    const ended = endRequested(log);

    await using host = await CacheHost.open({ config, log });
    const progress = showProgress(`Loading ${modelPath}`);
    await using engine = startEngine({ config, modelPath, host, log, onProgress: (share) => progress.update(share) });
    await using server = await listen({
      app: createApp({
        engine,
        cacheStats: () => cacheStats(host, engine),
        resizeMemory: (capacityBytes) => host.resize(capacityBytes),
        apiKeys: config.apiKey,
        serverSecret: host.secret,
        log: log.named("http"),
        version,
        corsOrigins: config.corsOrigin,
        ...hostsAllowedBy(config),
      }),
      log: log.named("http"),
      host: config.host,
      port: config.port,
    });

    const outcome = await Promise.race([engine.ready.then(() => "ready" as const), ended]);
    progress.end();
    if (outcome === "ready") {
      process.stdout.write(`Reprise is ready at ${server.url}\n`);
      await ended;
    }
    return 0;
  },
};

/** The engine as this configuration wants it, connected to the host's cache. */
export function startEngine(parts: {
  config: Config;
  modelPath: string;
  host: CacheHost;
  log: Log;
  onProgress?: (share: number) => void;
}): LlamaEngine {
  const { config, host } = parts;
  return LlamaEngine.start({
    modelPath: parts.modelPath,
    ...(config.context === 0 ? {} : { contextTokens: config.context }),
    slots: config.slots,
    threads: config.threads,
    gpu: config.gpu,
    gpuLayers: config.gpuLayers,
    deterministic: config.deterministic,
    socketPath: host.socketPath,
    dataDirectory: resolve(config.dataDir),
    maxWaiting: config.queue,
    log: parts.log.named("engine"),
    ...(parts.onProgress === undefined ? {} : { onProgress: parts.onProgress }),
  });
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
    throw new RepriseError("MODEL_NOT_FOUND", `--model ${path}: ${describe(error)}`, { cause: error });
  }
  throw new RepriseError("MODEL_NOT_FOUND", `--model ${path} is not a file; give the path of a .gguf file`);
}

/** What `/cache/stats` answers: of the chunks that a power cut would lose, the engine has some as well. */
function cacheStats(host: CacheHost, engine: Engine): object {
  const stats = host.stats();
  const engineStats = engine.stats();
  return { ...stats, unsavedChunks: engineStats.unsavedChunks + stats.unsavedChunks, engine: engineStats };
}
