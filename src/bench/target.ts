/** A server under measurement: found or started, asked what it is, and given back with its figures. */
import type { Agent } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { assert, RepriseError } from "../errors.ts";
import { parseMetrics } from "./metrics-text.ts";
import { type TreeCost, TreeWatch } from "./process-tree.ts";
import type { TargetFacts } from "./result.ts";
import type { Prepared } from "./runner.ts";
import { ServerCalls } from "./server-calls.ts";
import { StartedServer } from "./started-server.ts";
import { streamAgent, type StreamedAnswer, streamRequest } from "./stream-client.ts";
import { measureScale, type TokenScale } from "./token-scale.ts";
import type { BenchRequest } from "./workloads/workload.ts";

export interface TargetOptions {
  readonly label: string;
  /** Without a path: `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly apiKey: string | undefined;
  /** For the figures of the whole server, where the other key may not see them. */
  readonly adminKey: string | undefined;
  /** The command that starts the server at `url`; undefined: it runs already. */
  readonly start: string | undefined;
  readonly stallMs: number;
}

export class Target implements AsyncDisposable {
  readonly label: string;
  readonly model: string;
  readonly scale: TokenScale;
  readonly #options: TargetOptions;
  /** Asks for figures, also when the run was ended early: what was measured until then has its own. */
  readonly #figures: ServerCalls;
  #agent: Agent;
  #server: StartedServer | undefined;
  #watch: TreeWatch | undefined;
  #metricsBefore: Readonly<Record<string, number>> = {};
  #costBefore: TreeCost | undefined;
  /** Of the servers before a restart, since measuring began. */
  #costOfEarlier: TreeCost = { cpuSeconds: 0, residentBytes: 0 };

  private constructor(parts: {
    options: TargetOptions;
    server: StartedServer | undefined;
    model: string;
    scale: TokenScale;
  }) {
    this.label = parts.options.label;
    this.model = parts.model;
    this.scale = parts.scale;
    this.#options = parts.options;
    const { url, apiKey, adminKey = apiKey } = parts.options;
    this.#figures = new ServerCalls({ url, key: adminKey });
    this.#agent = streamAgent(new URL(url));
    this.#server = parts.server;
    this.#watch = parts.server === undefined ? undefined : new TreeWatch(parts.server.pid);
  }

  /** Starts the server where it is to be started, and asks what it is. @throws RepriseError TARGET_UNAVAILABLE */
  static async open(options: TargetOptions, signal: AbortSignal): Promise<Target> {
    const calls = new ServerCalls({ url: options.url, key: options.apiKey, signal });
    if (options.start !== undefined && (await isReady(calls))) {
      throw new RepriseError(
        "TARGET_UNAVAILABLE",
        `${options.url} is answered already, before --start ${options.start}: end that server, or leave --start out`,
      );
    }
    const server = options.start === undefined ? undefined : await StartedServer.start(options.start);
    try {
      await server?.ready(() => isReady(calls), signal);
      const model = modelIn(await calls.json("GET", "/v1/models"));
      if (signal.aborted) throw new RepriseError("CANCELLED", `ended before ${options.url} was asked`);
      if (model === undefined) {
        throw new RepriseError(
          "TARGET_UNAVAILABLE",
          `${options.url}/v1/models names no model: is the server up, the address right, and --api-key given?`,
        );
      }
      return new Target({ options, server, model, scale: await measureScale(calls, model) });
    } catch (error) {
      await server?.[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Makes a request ready to be sent: streaming, with usage, to this target's model. */
  prepare(request: BenchRequest): Prepared {
    const { url, apiKey, stallMs } = this.#options;
    const parts = {
      url: new URL(`${url}${request.path}`),
      agent: this.#agent,
      apiKey,
      stallMs,
      expected: request.expected,
      body: JSON.stringify({
        ...request.body,
        model: this.model,
        stream: true,
        stream_options: { include_usage: true },
      }),
    };
    return (signal): Promise<StreamedAnswer> => streamRequest({ ...parts, signal });
  }

  /** Reads what the measured part begins with. */
  async beginMeasuring(): Promise<void> {
    this.#metricsBefore = await this.#metrics();
    this.#costBefore = this.#watch?.cost();
  }

  /**
   * Waits until a server that tells so (Reprise does, at /cache/stats) has saved what it wants to keep, half a minute at
   * most; with any other server not at all.
   */
  async saved(signal: AbortSignal): Promise<void> {
    const end = performance.now() + 30_000;
    while (!signal.aborted && performance.now() < end) {
      const stats = await this.#figures.json("GET", "/cache/stats");
      const left = typeof stats === "object" && stats !== null && "unsavedChunks" in stats ? stats.unsavedChunks : 0;
      if (typeof left !== "number" || left === 0) return;
      await sleep(20);
    }
  }

  /**
   * Ends the server that was started, and starts it again: without warning, or as whoever runs it would.
   *
   * @throws RepriseError TARGET_UNAVAILABLE when it does not come again; CANCELLED.
   */
  async restart(how: "killed" | "stopped", signal: AbortSignal): Promise<void> {
    const { start, url, apiKey } = this.#options;
    assert(start !== undefined && this.#server !== undefined, `${url} was not started here, and cannot be restarted`);
    this.#costOfEarlier = this.#costSinceBefore() ?? this.#costOfEarlier;
    this.#costBefore = undefined;
    this.#watch?.[Symbol.dispose]();
    this.#watch = undefined;
    this.#agent.destroy();
    if (how === "killed") await this.#server.kill();
    else await this.#server[Symbol.asyncDispose]();
    this.#agent = streamAgent(new URL(url));
    this.#server = await StartedServer.start(start);
    this.#watch = new TreeWatch(this.#server.pid);
    await this.#server.ready(() => isReady(new ServerCalls({ url, key: apiKey, signal })), signal);
  }

  /** All about this target, with what it used since beginMeasuring. */
  async facts(): Promise<TargetFacts> {
    const cost = this.#costSinceBefore();
    return {
      label: this.label,
      url: this.#options.url,
      model: this.model,
      charactersPerToken: this.scale.charactersPerToken,
      ...cost,
      metricsBefore: this.#metricsBefore,
      metricsAfter: await this.#metrics(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watch?.[Symbol.dispose]();
    this.#agent.destroy();
    await this.#server?.[Symbol.asyncDispose]();
  }

  /** Undefined for a server that was not started here. */
  #costSinceBefore(): TreeCost | undefined {
    const cost = this.#watch?.cost();
    if (cost === undefined) return undefined;
    return {
      cpuSeconds: this.#costOfEarlier.cpuSeconds + cost.cpuSeconds - (this.#costBefore?.cpuSeconds ?? 0),
      residentBytes: Math.max(this.#costOfEarlier.residentBytes, cost.residentBytes),
    };
  }

  async #metrics(): Promise<Record<string, number>> {
    return parseMetrics((await this.#figures.text("/metrics")) ?? "");
  }
}

/** `/health` decides where there is one: a server may name its model before it can answer. */
async function isReady(calls: ServerCalls): Promise<boolean> {
  const health = await calls.status("/health");
  if (health === undefined) return false;
  return health === 200 || (health === 404 && (await calls.status("/v1/models")) === 200);
}

function modelIn(answer: unknown): string | undefined {
  if (typeof answer !== "object" || answer === null || !("data" in answer) || !Array.isArray(answer.data))
    return undefined;
  const first: unknown = answer.data[0];
  return typeof first === "object" && first !== null && "id" in first && typeof first.id === "string"
    ? first.id
    : undefined;
}
