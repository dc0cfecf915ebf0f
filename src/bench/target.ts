/** A server under measurement: found or started, asked what it is, and given back with its figures. */
import type { Agent } from "node:http";
import { RepriseError } from "../errors.ts";
import { parseMetrics } from "./metrics-text.ts";
import { type TreeCost, TreeWatch } from "./process-tree.ts";
import type { TargetFacts } from "./result.ts";
import type { Prepared } from "./runner.ts";
import { ServerCalls } from "./server-calls.ts";
import { StartedServer } from "./started-server.ts";
import { streamAgent, type StreamedAnswer, streamRequest } from "./stream-client.ts";
import { measureScale, type TokenScale } from "./token-scale.ts";
import type { BenchRequest } from "./workload.ts";

export interface TargetOptions {
  readonly label: string;
  /** Without a path: `http://127.0.0.1:8080`. */
  readonly url: string;
  readonly apiKey: string | undefined;
  /** The command that starts the server at `url`; undefined: it runs already. */
  readonly start: string | undefined;
  readonly stallMs: number;
}

export class Target implements AsyncDisposable {
  readonly label: string;
  readonly model: string;
  readonly scale: TokenScale;
  readonly #options: TargetOptions;
  /** Asks on also when the run was ended early: what was measured until then has its figures. */
  readonly #calls: ServerCalls;
  readonly #agent: Agent;
  readonly #server: StartedServer | undefined;
  readonly #watch: TreeWatch | undefined;
  #metricsBefore: Readonly<Record<string, number>> = {};
  #costBefore: TreeCost | undefined;

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
    this.#calls = new ServerCalls(parts.options);
    this.#agent = streamAgent(new URL(parts.options.url));
    this.#server = parts.server;
    this.#watch = parts.server === undefined ? undefined : new TreeWatch(parts.server.pid);
  }

  /** Starts the server where it is to be started, and asks what it is. @throws RepriseError TARGET_UNAVAILABLE */
  static async open(options: TargetOptions, signal: AbortSignal): Promise<Target> {
    const calls = new ServerCalls({ ...options, signal });
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

  /** All about this target, with what it used since beginMeasuring. */
  async facts(): Promise<TargetFacts> {
    const cost = this.#watch?.cost();
    return {
      label: this.label,
      url: this.#options.url,
      model: this.model,
      charactersPerToken: this.scale.charactersPerToken,
      ...(cost === undefined
        ? {}
        : {
            cpuSeconds: cost.cpuSeconds - (this.#costBefore?.cpuSeconds ?? 0),
            residentBytes: cost.residentBytes,
          }),
      metricsBefore: this.#metricsBefore,
      metricsAfter: await this.#metrics(),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watch?.[Symbol.dispose]();
    this.#agent.destroy();
    await this.#server?.[Symbol.asyncDispose]();
  }

  async #metrics(): Promise<Record<string, number>> {
    return parseMetrics((await this.#calls.text("/metrics")) ?? "");
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
