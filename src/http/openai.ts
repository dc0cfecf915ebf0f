/**
 * `/v1/chat/completions` and `/v1/completions`: a parsed request goes to the engine, its events come back as one JSON
 * answer or as a stream of chunks.
 *
 * A stream's status is decided as late as possible: an engine that refuses does so before its first event, and gets a
 * proper HTTP status as long as that happens within the first keep-alive interval. Later failures travel in the stream.
 */
import { createHash, randomUUID } from "node:crypto";
import { Hono, type Context } from "hono";
import type { Engine, GenerateEvent, GenerateRequest, ModelInfo, PromptReport } from "../engine.ts";
import { assert, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { Access } from "./access.ts";
import { chatShape, completionShape, repriseOf, usageOf, type AnswerShape, type TextEvent } from "./answer-shape.ts";
import type { AppEnv, HttpLimits } from "./app-env.ts";
import type { Metrics } from "./metrics.ts";
import type { BodyReader } from "./read-json.ts";
import { answerTo } from "./refusal.ts";
import { parseChat, parseCompletion, type ParsedRequest } from "./request-body.ts";
import { checkModelName, loadedModel } from "./served-model.ts";
import { dataFrame, doneFrame, eventStream, eventStreamHeaders, keepAliveComment, PatientReader } from "./sse.ts";

export interface OpenAiParts {
  readonly engine: Engine;
  readonly access: Access;
  readonly bodies: BodyReader;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly limits: HttpLimits;
  readonly version: string;
}

export function openAiRoutes(parts: OpenAiParts): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.post("/v1/chat/completions", (c) => answerRequest(c, parts, parseChat, chatShape()));
  app.post("/v1/completions", (c) => answerRequest(c, parts, parseCompletion, completionShape()));
  return app;
}

async function answerRequest(
  c: Context<AppEnv>,
  parts: OpenAiParts,
  parse: (body: unknown, model: ModelInfo) => ParsedRequest,
  shape: AnswerShape,
): Promise<Response> {
  const model = loadedModel(parts.engine);
  const parsed = parse(await parts.bodies.json(c.req.raw), model);
  if (parsed.model !== undefined) checkModelName(parsed.model, model);
  const salt = parts.access.saltOf(c.get("tenant"), parsed.cacheSalt);
  const request = { ...parsed.generate, cache: { salt, read: parsed.read, save: parsed.save } };
  const head = {
    id: `${shape.idPrefix}${randomUUID().replaceAll("-", "")}`,
    created: Math.floor(Date.now() / 1000),
    model: model.name,
    system_fingerprint: fingerprint(model, parts.version),
  };
  return parsed.stream
    ? streamAnswer(c, parts, request, { shape, head, includeUsage: parsed.includeUsage })
    : c.json(await wholeAnswer(c.req.raw.signal, parts, request, { shape, head }));
}

/** Changes when answers may change for the same seed: with the model, and with the server's version. */
function fingerprint(model: ModelInfo, version: string): string {
  const digest = createHash("sha256").update(`${version}\0${model.name}\0${model.parameters}\0${model.created}`);
  return `fp_${digest.digest("hex").slice(0, 10)}`;
}

interface AnswerForm {
  readonly shape: AnswerShape;
  /** The fields that every chunk of an answer repeats. */
  readonly head: {
    readonly id: string;
    readonly created: number;
    readonly model: string;
    readonly system_fingerprint: string;
  };
}

async function wholeAnswer(
  signal: AbortSignal,
  parts: OpenAiParts,
  request: GenerateRequest,
  { shape, head }: AnswerForm,
): Promise<object> {
  if (signal.aborted) throw new RepriseError("CANCELLED", "The client left.");
  const texts: TextEvent[] = [];
  let report: PromptReport | undefined;
  for await (const event of parts.engine.generate(request, signal)) {
    if (event.kind === "prompt") {
      report = event.report;
      parts.metrics.promptRead(report);
    } else if (event.kind === "text") texts.push(event);
    else {
      assert(report !== undefined, "the engine ended an answer without its prompt report");
      return {
        ...head,
        object: shape.object,
        choices: [shape.whole(texts, event.reason)],
        usage: usageOf(report, event.completionTokens),
        reprise: repriseOf(report),
      };
    }
  }
  throw stoppedEarly();
}

/** An answer without an end must not look like a short one. */
function stoppedEarly(): RepriseError {
  return new RepriseError("CANCELLED", "The request was stopped before its end.");
}

async function streamAnswer(
  c: Context<AppEnv>,
  parts: OpenAiParts,
  request: GenerateRequest,
  form: AnswerForm & { readonly includeUsage: boolean },
): Promise<Response> {
  const { metrics, limits } = parts;
  const work = new AbortController();
  const clientSignal = c.req.raw.signal;
  if (clientSignal.aborted) throw new RepriseError("CANCELLED", "The client left.");
  clientSignal.addEventListener("abort", () => work.abort(), { once: true });

  const events = new PatientReader(parts.engine.generate(request, work.signal));
  const chunks = new ChunkWriter(form, metrics);
  let result = await events.next(limits.keepAliveMs); // throws what becomes the HTTP status

  async function* frames(): AsyncGenerator<string, void> {
    try {
      for (; result === "waiting" || !result.done; result = await events.next(limits.keepAliveMs)) {
        if (result === "waiting") yield keepAliveComment;
        else yield* chunks.framesOf(result.value);
      }
      if (!chunks.ended) throw stoppedEarly();
    } catch (error) {
      if (work.signal.aborted) return;
      metrics.streamCut("failed");
      yield dataFrame(answerTo(error, { requestId: c.get("requestId"), log: parts.log }).body);
    } finally {
      await events.close();
    }
  }

  const body = eventStream({
    frames: frames(),
    stallMs: limits.stallMs,
    onGone: (reason) => {
      metrics.streamCut(reason);
      work.abort();
      // The frames may not have been started, and then have nothing that closes the engine's side.
      events.close().catch((error: unknown) => parts.log.debug(`a cut stream ended with: ${String(error)}`));
      if (reason === "slow_reader") c.env?.outgoing?.destroy();
    },
  });
  return new Response(body, { headers: eventStreamHeaders });
}

/** Turns the engine's events into the frames of one stream. */
class ChunkWriter {
  readonly #form: AnswerForm & { readonly includeUsage: boolean };
  readonly #metrics: Metrics;
  #report: PromptReport | undefined;
  /** The last chunk was made. */
  ended = false;

  constructor(form: AnswerForm & { readonly includeUsage: boolean }, metrics: Metrics) {
    this.#form = form;
    this.#metrics = metrics;
  }

  framesOf(event: GenerateEvent): string[] {
    const { shape, includeUsage } = this.#form;
    if (event.kind === "prompt") {
      this.#report = event.report;
      this.#metrics.promptRead(event.report);
      const opening = shape.opening();
      return opening === undefined ? [] : [this.#chunk([opening])];
    }
    if (event.kind === "text") return [this.#chunk([shape.piece(event)])];

    assert(this.#report !== undefined, "the engine ended an answer without its prompt report");
    this.ended = true;
    const reprise = repriseOf(this.#report);
    const usage = usageOf(this.#report, event.completionTokens);
    const ending = shape.ending(event.reason);
    return includeUsage
      ? [this.#chunk([ending]), this.#chunk([], { usage, reprise }), doneFrame]
      : [this.#chunk([ending], { reprise }), doneFrame];
  }

  /** With `include_usage` every chunk has the field, null until the last. */
  #chunk(choices: readonly object[], more: object = {}): string {
    const { shape, head, includeUsage } = this.#form;
    return dataFrame({ ...head, object: shape.chunkObject, choices, ...(includeUsage && { usage: null }), ...more });
  }
}
