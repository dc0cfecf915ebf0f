/**
 * Prompts that are named and not answered: `/cache/pin` keeps what is stored of one in memory, `/cache/prefetch` brings it there.
 * The body is that of the request which will ask for the answer, a chat or a completion. Both stop when the client leaves.
 */
import { Hono, type Context } from "hono";
import * as v from "valibot";
import type { CacheUse, Engine, GenerateRequest, ModelInfo } from "../../engine.ts";
import type { Access } from "../access.ts";
import type { AppEnv } from "../app-env.ts";
import { isBody, parse, refuse } from "../fields/field.ts";
import { ofField } from "../forms/form.ts";
import { openAiChat } from "../forms/openai-chat.ts";
import { openAiCompletions } from "../forms/openai-completions.ts";
import type { BodyReader } from "../read-json.ts";
import { checkModelName, loadedModel, promptBody } from "../served-model.ts";
import { workOf } from "./work-of-request.ts";

/** What can be done with a text that is not answered now. */
export interface TextKeeper {
  /** @returns the leading tokens that are pinned */
  readonly pin: (text: Owner, tokens: Uint32Array, seconds: number, signal: AbortSignal) => Promise<number>;
  /** @returns the leading tokens that are in memory now */
  readonly prefetch: (text: Owner, tokens: Uint32Array, signal: AbortSignal) => Promise<number>;
}

/** Whose text it is. */
type Owner = Pick<CacheUse, "salt" | "tenant">;

interface NamedPromptParts extends TextKeeper {
  readonly engine: Engine;
  readonly bodies: BodyReader;
  readonly access: Access;
}

const pinSchema = v.object({ seconds: v.pipe(v.number(), v.integer(), v.minValue(0), v.maxValue(3600)) });

export function namedPromptRoutes({ engine, bodies, access, pin, prefetch }: NamedPromptParts): Hono<AppEnv> {
  const app = new Hono<AppEnv>();

  const named = async (c: Context<AppEnv>) => {
    // What is stored is some tenant's, so that there is nothing that an admin could name as such.
    if (access.hasTenants) c.set("tenant", access.identify(c.req.raw.headers));
    const model = loadedModel(engine);
    const body = await bodies.json(c.req.raw, promptBody(c, model));
    const { prompt, promptField, cacheSalt } = parsePrompt(body, model);
    const tenant = c.get("tenant");
    const text = { salt: access.saltOf(tenant, cacheSalt), tenant: access.shareOf(tenant) };
    const { signal } = workOf(c);
    const tokens = () =>
      engine.promptTokens(prompt, { tenant: text.tenant, signal }).catch((error: unknown) => {
        throw ofField(error, promptField);
      });
    return { body, text, tokens, signal };
  };

  app.post("/cache/pin", async (c) => {
    const { body, text, tokens, signal } = await named(c);
    const { seconds } = parse(pinSchema, body);
    const prompt = await tokens();
    return c.json({ prompt_tokens: prompt.length, pinned_tokens: await pin(text, prompt, seconds, signal), seconds });
  });

  app.post("/cache/prefetch", async (c) => {
    const { text, tokens, signal } = await named(c);
    const prompt = await tokens();
    return c.json({ prompt_tokens: prompt.length, ready_tokens: await prefetch(text, prompt, signal) });
  });

  return app;
}

/** @throws RepriseError BAD_REQUEST with the field; RequestRefused 404 for another model's name */
function parsePrompt(
  body: unknown,
  model: ModelInfo,
): { prompt: GenerateRequest["prompt"]; promptField: string; cacheSalt: string | undefined } {
  const has = (field: string) => isBody(body) && body[field] !== undefined && body[field] !== null;
  if (has("messages") && has("prompt")) refuse("messages", "cannot be sent together with prompt");
  const form = has("messages") ? openAiChat : openAiCompletions;
  const { model: name, generate, cacheSalt } = form.parse(body, model);
  checkModelName(name, model);
  return { prompt: generate.prompt, promptField: form.promptField, cacheSalt };
}
