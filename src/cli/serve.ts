/** `reprise serve`: the cache, the engine and the HTTP server in one command, until a signal ends it. */
import { resolve } from "node:path";
import { formatBytes } from "../bytes.ts";
import { type Config, settingNames } from "../config.ts";
import { RepriseError } from "../errors.ts";
import type { EngineSettings } from "../engines/llama/engine-settings.ts";
import { LlamaEngine } from "../engines/llama/server/engine.ts";
import type { Engine, ModelInfo } from "../engine.ts";
import { createApp } from "../http/app/app.ts";
import { listen } from "../http/listen.ts";
import { createLog, type Log } from "../log.ts";
import { printable } from "../printable.ts";
import { version } from "../version.ts";
import { hostsAllowedBy, mustBePrivate, mustKnowPages, readKeys } from "./access.ts";
import { CacheHost } from "./cache-host.ts";
import { type ChosenModel, chooseModel } from "./choose-model.ts";
import { readChatTemplate } from "./chat-template-file.ts";
import type { Command } from "./command.ts";
import { showProgress } from "./progress.ts";
import { endRequested } from "./signals.ts";

/** How long bringing a text into memory may take that is to be pinned or prefetched. */
const bringMs = 10_000;

export const serve: Command = {
  name: "serve",
  summary: "runs the model behind an OpenAI-compatible server that reads each text once",
  options: {},
  settings: settingNames.filter((name) => name !== "metricsPort" && name !== "stopWhenUnused"),
  operands: ["[MODEL]"],

  async run({ config: given, operands }) {
    const config = withModel(given, operands[0]);
    mustBeAlike(config);
    const log = createLog({ level: config.logLevel });
    const keys = readKeys(config);
    mustBePrivate(config.host, keys.apiKeys, "api-key");
    mustKnowPages(config.corsOrigin, keys.apiKeys);
    const model = await chooseModel(config);
    const chatTemplate = readChatTemplate(config);
    const ended = endRequested(log);

    await using host = await CacheHost.open({ config, log });
    using progress = showProgress(`Loading ${printable(model.path)}`);
    await using engine = startEngine({
      config,
      model,
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
        pin: (text, tokens, seconds, signal) =>
          host.cache.pin({ ...text, adapter: "" }, tokens, seconds, { deadlineMs: bringMs, signal }),
        prefetch: (text, tokens, signal) =>
          host.cache.prefetch({ ...text, adapter: "" }, tokens, { deadlineMs: bringMs, signal }),
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
      process.stdout.write(readyMessage(server.url, await engine.ready, { ...config, peerAddress: host.peerAddress }));
      await ended;
    }
    await server.close({ graceMs: config.drain * 1000 });
    return 0;
  },
};

/** What is there now, where to look at it, and what of the machine it may take. The first line is for programs too. */
function readyMessage(
  url: string,
  model: ModelInfo,
  { sequences, memory, disk, dataDir, peerAddress }: Config & { readonly peerAddress: string | undefined },
): string {
  const context = `${model.contextTokens.toLocaleString("en")} tokens of context`;
  const below = drivesOf(disk, dataDir).map(({ bytes, place }) => `, ${formatBytes(bytes)} on disk (${place})`);
  return [
    `Reprise is ready at ${url}`,
    `  model   ${printable(model.name)}: ${context}, ${sequences} ${sequences === 1 ? "request" : "requests"} at a time`,
    `  page    ${url}/`,
    `  room    up to ${formatBytes(memory)} of memory${below.join("")}`,
    ...(peerAddress === undefined ? [] : [`  hosts   read at ${peerAddress}`]),
    "",
  ].join("\n");
}

function drivesOf(disk: Config["disk"], dataDir: string): { bytes: number; place: string }[] {
  return disk.flatMap(({ directory, bytes }) => (bytes === 0 ? [] : [{ bytes, place: directory ?? dataDir }]));
}

/** The engine as this configuration wants it, connected to the host's cache. */
export function startEngine(parts: {
  config: Config;
  model: ChosenModel;
  chatTemplate?: string | undefined;
  host: CacheHost;
  log: Log;
  onProgress?: (share: number) => void;
}): LlamaEngine {
  const { config, host } = parts;
  return LlamaEngine.start({
    modelPath: parts.model.path,
    chatTemplate: parts.chatTemplate,
    settings: { ...engineSettings(config, host.socketPath), modelName: parts.model.name },
    dataDirectory: resolve(config.dataDir),
    maxWaiting: config.queue,
    log: parts.log,
    ...(parts.onProgress === undefined ? {} : { onProgress: parts.onProgress }),
  });
}

export function engineSettings(config: Config, socketPath: string): EngineSettings {
  const { context: contextTokens, sequences, threads, maxGap: maxGapMs, gpu, gpuLayers, deterministic, draft } = config;
  const llamaLib = config.llamaLib === "" ? undefined : config.llamaLib;
  return { contextTokens, sequences, threads, maxGapMs, gpu, gpuLayers, llamaLib, deterministic, draft, socketPath };
}

/** @throws RepriseError BAD_CONFIG when answers are to be the same bit for bit, and several of their tokens computed together */
export function mustBeAlike({ deterministic, draft }: Config): void {
  if (!deterministic || draft === "off") return;
  throw new RepriseError(
    "BAD_CONFIG",
    `--draft ${draft} computes several tokens in one step, which may change the last bits: leave it out, or --deterministic`,
  );
}

/** `reprise serve MODEL` is `reprise serve --model MODEL`. @throws RepriseError BAD_CONFIG when both are given */
function withModel(config: Config, operand: string | undefined): Config {
  if (operand === undefined) return config;
  if (config.model !== "" && config.model !== operand)
    throw new RepriseError("BAD_CONFIG", `two models are given, ${operand} and ${config.model}: name one`);
  return { ...config, model: operand };
}

/** What `/cache/stats` answers: of the chunks that a power cut would lose, the engine has some as well. */
function cacheStats(host: CacheHost, engine: Engine): object {
  const stats = host.stats();
  const engineStats = engine.stats();
  return { ...stats, unsavedChunks: engineStats.unsavedChunks + stats.unsavedChunks, engine: engineStats };
}
