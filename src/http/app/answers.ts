/**
 * Answers, in whatever form they are asked for (forms/): a parsed request goes to the engine, its events come back as one JSON
 * answer or as a stream.
 *
 * A stream's status is decided as late as possible: an engine that refuses does so before its first event, and gets a
 * proper HTTP status as long as that happens within the first keep-alive interval. Later failures travel in the stream.
 */
import { createHash, randomUUID } from "node:crypto";
import { Hono, type Context } from "hono";
import type { Engine, GenerateEvent, GenerateRequest, ModelInfo } from "../../engine.ts";
import { RepriseError } from "../../errors.ts";
import type { Log } from "../../log.ts";
import type { Access } from "../access.ts";
import type { AppEnv, HttpLimits } from "../app-env.ts";
import { type AnswerForm, type AnswerWriter, ofField } from "../forms/form.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { BodyReader } from "../read-json.ts";
import { refusalOf, serverCloses } from "../refusal.ts";
import { checkModelName, loadedModel, promptBody } from "../served-model.ts";
import { AnswerLine } from "./answer-line.ts";
import { workOf } from "./work-of-request.ts";
import { eventStream, eventStreamHeaders, keepAliveComment, PatientReader } from "../sse.ts";

export interface AnswerParts {
  readonly engine: Engine;
  readonly access: Access;
  readonly bodies: BodyReader;
  readonly metrics: Metrics;
  readonly log: Log;
  readonly limits: HttpLimits;
  readonly version: string;
}

export function answerRoutes(forms: readonly AnswerForm[], parts: AnswerParts): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  for (const form of forms) for (const path of form.paths) app.post(path, (c) => answerRequest(c, form, parts));
  return app;
}

async function answerRequest(c: Context<AppEnv>, form: AnswerForm, shared: AnswerParts): Promise<Response> {
  const parts = { ...shared, metrics: shared.metrics.ofTenant(c.get("tenant")) };
  const model = loadedModel(parts.engine);
  const parsed = form.parse(await parts.bodies.json(c.req.raw, promptBody(c, model)), model);
  checkModelName(parsed.model, model);
  const tenant = c.get("tenant");
  const salt = parts.access.saltOf(tenant, parsed.cacheSalt);
  const cache = { salt, tenant: parts.access.shareOf(tenant), read: parsed.read, save: parsed.save };
  const request = { ...parsed.generate, cache };
  const head = {
    id: randomUUID().replaceAll("-", ""),
    created: Math.floor(Date.now() / 1000),
    model: model.name,
    fingerprint: fingerprint(model, parts.version),
  };
  const answer = { request, writer: form.writer(head, parsed.options), promptField: form.promptField };
  try {
    return parsed.stream
      ? await streamAnswer(c, parts, answer)
      : c.json(await wholeAnswer(workOf(c).signal, parts, answer));
  } catch (error) {
    throw ofField(error, form.promptField);
  }
}

/** Changes when answers may change for the same seed: with the model, and with the server's version. */
function fingerprint(model: ModelInfo, version: string): string {
  const digest = createHash("sha256").update(`${version}\0${model.name}\0${model.parameters}\0${model.created}`);
  return `fp_${digest.digest("hex").slice(0, 10)}`;
}

/** An answer that is to be given. */
interface Answer {
  readonly request: GenerateRequest;
  readonly writer: AnswerWriter;
  readonly promptField: string;
}

async function wholeAnswer(signal: AbortSignal, parts: AnswerParts, { request, writer }: Answer): Promise<object> {
  if (signal.aborted) throw new RepriseError("CANCELLED", "The client left.");
  const events: GenerateEvent[] = [];
  const line = new AnswerLine(parts.log);
  let isWhole = false;
  try {
    for await (const event of parts.engine.generate(request, signal)) {
      events.push(event);
      line.saw(event);
      if (event.kind === "prompt") parts.metrics.promptRead(event.report);
      isWhole = event.kind === "end";
      if (isWhole) return writer.whole(events);
    }
    throw stoppedEarly();
  } finally {
    line.over(isWhole ? "whole" : signal.aborted ? "the client left" : "cut short");
  }
}

/** An answer without an end must not look like a short one. */
function stoppedEarly(): RepriseError {
  return new RepriseError("CANCELLED", "The request was stopped before its end.");
}

async function streamAnswer(
  c: Context<AppEnv>,
  parts: AnswerParts,
  { request, writer, promptField }: Answer,
): Promise<Response> {
  const { metrics, limits } = parts;
  const work = workOf(c);
  if (work.signal.aborted) throw new RepriseError("CANCELLED", "The client left.");
  let isGone = false;
  const isClosing = () => c.env?.closing?.aborted === true;

  const events = new PatientReader(parts.engine.generate(request, work.signal));
  const line = new AnswerLine(parts.log);
  let hasEnded = false;
  let result = await events.next(limits.keepAliveMs); // throws what becomes the HTTP status

  async function* frames(): AsyncGenerator<string, void> {
    try {
      for (; result === "waiting" || !result.done; result = await events.next(limits.keepAliveMs)) {
        if (result === "waiting") yield keepAliveComment;
        else {
          const event = result.value;
          line.saw(event);
          if (event.kind === "prompt") metrics.promptRead(event.report);
          hasEnded = event.kind === "end";
          yield* writer.frames(event);
        }
      }
      if (!hasEnded) throw stoppedEarly();
    } catch (error) {
      if (isGone || c.req.raw.signal.aborted) return;
      metrics.streamCut(isClosing() ? "closing" : "failed");
      const told = isClosing() ? serverCloses() : ofField(error, promptField);
      yield* writer.failure(refusalOf(told, { requestId: c.get("requestId"), log: parts.log }));
    } finally {
      line.over(hasEnded ? "whole" : isGone || c.req.raw.signal.aborted ? "the client left" : "cut short");
      await events.close();
    }
  }

  const body = eventStream({
    frames: frames(),
    stallMs: limits.stallMs,
    onGone: (reason) => {
      isGone = true;
      metrics.streamCut(reason);
      work.abort();
      // The frames may not have been started, and then have nothing that closes the engine's side.
      events.close().catch((error: unknown) => parts.log.debug(`a cut stream ended with: ${String(error)}`));
      if (reason === "slow_reader") c.env?.outgoing?.destroy();
    },
  });
  return new Response(body, { headers: eventStreamHeaders(c.env?.incoming?.httpVersion) });
}
