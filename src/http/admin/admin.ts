/** Everything around the answers: is the server well, what does it hold, which model is it, and its tokenizer. */
import { Hono, type Context } from "hono";
import type { Engine, ModelInfo } from "../../engine.ts";
import { RepriseError } from "../../errors.ts";
import type { Access } from "../access.ts";
import type { AppEnv } from "../app-env.ts";
import type { Metrics } from "../metrics/metrics.ts";
import type { BodyReader } from "../read-json.ts";
import { parseDetokenize, parseTokenize } from "./admin-body.ts";
import { checkModelName, loadedModel, modelNames, promptBody } from "../served-model.ts";

export interface AdminParts {
  readonly engine: Engine;
  readonly cacheStats: () => unknown;
  readonly metrics: Metrics;
  readonly bodies: BodyReader;
  readonly access: Access;
}

export function adminRoutes({ engine, cacheStats, metrics, bodies, access }: AdminParts): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  const askerOf = (c: Context<AppEnv>) => ({
    tenant: access.shareOf(c.get("tenant")),
    signal: c.req.raw.signal,
  });

  app.get("/health", (c) => {
    const { state } = engine.stats();
    if (state === "ready") return c.json({ status: "ok" });
    return c.json({ status: state }, 503, { "retry-after": "5" });
  });

  app.get("/metrics", async (c) => c.body(await metrics.render(), 200, { "content-type": metrics.contentType }));

  app.get("/cache/stats", (c) => {
    const caller = c.get("caller");
    return c.json(caller.kind === "admin" ? (cacheStats() ?? {}) : { tenant: metrics.tenantFigures(caller.tenant) });
  });

  for (const path of ["/v1/models", "/models"]) {
    app.get(path, (c) => {
      const model = loadedModel(engine);
      return c.json({ object: "list", data: modelNames(model).map((id) => modelEntry(id, model)) });
    });
    app.get(`${path}/:name`, (c) => {
      const model = loadedModel(engine);
      checkModelName(c.req.param("name"), model);
      return c.json(modelEntry(c.req.param("name"), model));
    });
  }

  app.post("/tokenize", async (c) => {
    const model = loadedModel(engine);
    const { text, withPieces, ...options } = parseTokenize(await bodies.json(c.req.raw, promptBody(c, model)));
    checkModelName(options.model, model);
    const tokens = await engine.tokenize(text, { ...options, ...askerOf(c) });
    if (!withPieces) return c.json({ tokens: [...tokens], count: tokens.length });
    if (tokens.length > model.contextTokens) throw tooManyPieces(tokens.length, model.contextTokens);
    const pieces = await engine.pieces(tokens, askerOf(c));
    const named = pieces.map((bytes, index) => ({ id: tokens[index], piece: pieceOf(bytes) }));
    return c.json({ tokens: named, count: tokens.length });
  });

  app.post("/detokenize", async (c) => {
    const loaded = loadedModel(engine);
    const { model, tokens } = parseDetokenize(await bodies.json(c.req.raw, promptBody(c, loaded)), loaded);
    checkModelName(model, loaded);
    return c.json({ content: await engine.detokenize(tokens, askerOf(c)) });
  });

  return app;
}

/** As llama-server writes pieces: text where the bytes are whole characters, else the bytes. */
function pieceOf(bytes: Uint8Array): string | number[] {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return [...bytes];
  }
}

function tooManyPieces(count: number, contextTokens: number): RepriseError {
  const message = `with_pieces cannot be given for ${count} tokens: it is for as many as the context holds, ${contextTokens}`;
  return new RepriseError("BAD_REQUEST", message, { field: "with_pieces" });
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
