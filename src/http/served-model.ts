/** The one model of a server: is it there yet, and by which names may it be asked for. */
import type { Context } from "hono";
import type { Engine, ModelInfo } from "../engine.ts";
import { RepriseError } from "../errors.ts";
import { senderOf, type AppEnv } from "./app-env.ts";
import type { BodyOrigin } from "./read-json.ts";
import { RequestRefused } from "./refusal.ts";

/**
 * The loaded model.
 *
 * @throws RepriseError ENGINE_LOADING or ENGINE_FAILED when there is none yet.
 */
export function loadedModel(engine: Engine): ModelInfo {
  if (engine.model !== undefined) return engine.model;
  throw engine.stats().state === "failed"
    ? new RepriseError("ENGINE_FAILED", "The model could not be loaded; the server's log says why.")
    : new RepriseError("ENGINE_LOADING", "The model is still being loaded; try again in a few seconds.");
}

/** Bytes that JSON may take for a byte of text: six, where a client writes `\u0041` for every character. */
const jsonBytesPerByte = 6;
/** Beside the text: names and frames of messages, tools, stop texts. */
const otherFieldsBytes = 2 * 2 ** 20;

/** The largest body that can hold a prompt for this model; one of more need not be read. */
export function promptBodyBytes({ longestTextBytes }: ModelInfo): number {
  return jsonBytesPerByte * longestTextBytes + otherFieldsBytes;
}

/** A body that holds a prompt for this model. */
export function promptBody(c: Context<AppEnv>, model: ModelInfo): BodyOrigin {
  return { sender: senderOf(c), mostBytes: promptBodyBytes(model) };
}

/** The names that `/v1/models` lists. Tools take the first, and ask others about a model of that name. */
export function modelNames(model: ModelInfo): readonly string[] {
  return [model.name, "default"];
}

/** Accepts the listed names, the file's, and none. @throws RequestRefused 404. */
export function checkModelName(name: string | undefined, model: ModelInfo): void {
  if (name === undefined) return;
  if ([...modelNames(model), `${model.name}.gguf`].includes(name)) return;
  throw new RequestRefused(404, "model_not_found", `There is no model of this name here; ask for "${model.name}".`, {
    field: "model",
  });
}
