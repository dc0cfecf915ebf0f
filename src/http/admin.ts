/** Everything around the answers: is the server well, what does it hold, which model is it, and its tokenizer. */
import { Hono } from "hono";
import type { Engine, ModelInfo } from "../engine.ts";
import type { Access } from "./access.ts";
import type { AppEnv } from "./app-env.ts";
import type { Metrics } from "./metrics.ts";
import type { BodyReader } from "./read-json.ts";
import { parseDetokenize, parsePin, parseTokenize } from "./request-body.ts";
import { checkModelName, loadedModel, modelNames } from "./served-model.ts";

export interface AdminParts {
  readonly engine: Engine;
  readonly cacheStats: () => unknown;
  readonly metrics: Metrics;
  readonly bodies: BodyReader;
  readonly access: Access;
  readonly pin: (salt: string, tokens: Uint32Array, seconds: number) => Promise<number>;
}

export function adminRoutes({ engine, cacheStats, metrics, bodies, access, pin }: AdminParts): Hono<AppEnv> {
  const app = new Hono<AppEnv>();

  app.get("/health", (c) => {
    const { state } = engine.stats();
    if (state === "ready") return c.json({ status: "ok" });
    return c.json({ status: state }, 503, { "retry-after": "5" });
  });

  app.get("/metrics", async (c) => c.body(await metrics.render(), 200, { "content-type": metrics.contentType }));

  app.get("/cache/stats", (c) => c.json(cacheStats() ?? {}));

  app.post("/cache/pin", async (c) => {
    const { prompt, seconds, cacheSalt } = parsePin(await bodies.json(c.req.raw), loadedModel(engine));
    // As a completion's prompt is read.
    const tokens = typeof prompt === "string" ? await engine.tokenize(prompt, { begin: true, special: true }) : prompt;
    const pinned = await pin(access.saltOf(c.get("tenant"), cacheSalt), tokens, seconds);
    return c.json({ prompt_tokens: tokens.length, pinned_tokens: pinned, seconds });
  });

  app.get("/v1/models", (c) => {
    const model = loadedModel(engine);
    return c.json({ object: "list", data: modelNames(model).map((id) => modelEntry(id, model)) });
  });

  app.get("/v1/models/:name", (c) => {
    const model = loadedModel(engine);
    checkModelName(c.req.param("name"), model);
    return c.json(modelEntry(c.req.param("name"), model));
  });

  app.post("/tokenize", async (c) => {
    const { text, begin, special } = parseTokenize(await bodies.json(c.req.raw));
    loadedModel(engine);
    const tokens = await engine.tokenize(text, { begin, special });
    return c.json({ tokens: [...tokens], count: tokens.length });
  });

  app.post("/detokenize", async (c) => {
    const body = await bodies.json(c.req.raw);
    return c.json({ content: await engine.detokenize(parseDetokenize(body, loadedModel(engine))) });
  });

  return app;
}

function modelEntry(id: string, model: ModelInfo): object {
  return {
    id,
    object: "model",
    created: model.created,
    owned_by: "reprise",
    max_model_len: model.contextTokens,
    reprise: {
      name: model.name,
      architecture: model.architecture,
      parameters: model.parameters,
      reuse: model.reuse === true ? "prefix" : "none",
      ...(model.reuse !== true && { reuse_refused: model.reuse.refused }),
    },
  };
}
