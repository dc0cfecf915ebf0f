/** `reprise cache`: the cache alone, for engines that are started by others; and what may be done to it. */
import { createCacheApp } from "../http/admin/cache-app.ts";
import { listen } from "../http/listen.ts";
import type { Config } from "../config.ts";
import { createLog, type Log } from "../log.ts";
import { hostsAllowedBy, mustBePrivate, readKeys } from "./access.ts";
import { CacheHost } from "./cache-host.ts";
import { clearCache } from "./clear-cache.ts";
import { collectCache } from "./collect-cache.ts";
import type { Command } from "./command.ts";
import { compactCache } from "./compact-cache.ts";
import { endRequested } from "./signals.ts";

export const cache: Command = {
  name: "cache",
  summary:
    "runs the cache alone, for engines such as vLLM; clear empties it, compact frees disk space, collect tidies a bucket",
  options: {},
  settings: [
    "dataDir",
    "memory",
    "poolDir",
    "disk",
    "scrubDays",
    "tier",
    "tierKeyFile",
    "mooncakePython",
    "listen",
    "listenCert",
    "listenKey",
    "listenCompress",
    "tokenFile",
    "socket",
    "stopWhenUnused",
    "metricsPort",
    "host",
    "adminKey",
    "adminKeyFile",
    "metrics",
    "allowedHost",
    "logLevel",
  ],
  variants: {
    "": { summary: "runs the cache alone", options: {} },
    clear: {
      summary: "forgets everything that is stored, in memory and on disk, whether or not a cache runs",
      options: {},
    },
    compact: {
      summary: "frees disk space that nothing reachable uses any more; loses nothing, whether or not a cache runs",
      options: {},
    },
    collect: {
      summary: "removes from a bucket (--tier s3://…) what nobody has used for its ttl; safe beside hosts that use it",
      options: {},
    },
  },

  run({ variant, config }) {
    if (variant === "clear") return clearCache(config);
    if (variant === "collect") return collectCache(config);
    return variant === "compact" ? compactCache(config) : runCache(config);
  },
};

async function runCache(config: Config): Promise<number> {
  const log = createLog({ level: config.logLevel });
  const adminKeys = config.metricsPort === undefined ? [] : readAdminKeys(config);
  const ended = endRequested(log);
  const closing = new AbortController();

  await using host = await CacheHost.open({ config, log });
  await using _figures = await giveFigures(config, adminKeys, host, log);
  process.stdout.write(`Reprise is ready at unix:${host.socketPath}\n`);
  if (host.peerAddress !== undefined) process.stdout.write(`Other hosts read at ${host.peerAddress}\n`);

  const ends: Promise<"ended" | "unused">[] = [ended];
  if (config.stopWhenUnused > 0) ends.push(host.unusedFor(config.stopWhenUnused * 1000, closing.signal));
  if ((await Promise.race(ends)) === "unused")
    log.info(`no engine was connected for ${config.stopWhenUnused} s: closing`);
  closing.abort();
  return 0;
}

/** There are no tenants here, and so no keys of theirs: what the figures tell concerns all. @throws RepriseError BAD_CONFIG */
function readAdminKeys(config: Config): readonly string[] {
  const { adminKeys } = readKeys({ ...config, apiKey: [], apiKeyFile: [] });
  mustBePrivate(config.host, adminKeys, "admin-key");
  return adminKeys;
}

/** The HTTP listener that was asked for, if one was. */
async function giveFigures(
  config: Config,
  adminKeys: readonly string[],
  host: CacheHost,
  log: Log,
): Promise<AsyncDisposable | undefined> {
  if (config.metricsPort === undefined) return undefined;
  const httpLog = log.named("http");
  const app = createCacheApp({
    cacheStats: () => host.stats(),
    cacheFigures: host.figures(),
    adminKeys,
    openMetrics: config.metrics === "open",
    log: httpLog,
    ...hostsAllowedBy(config, adminKeys),
  });
  const server = await listen({ app, log: httpLog, host: config.host, port: config.metricsPort });
  process.stdout.write(`Figures are at ${server.url}/metrics\n`);
  return server;
}
