/** The one model of a server: is it there yet, and by which names may it be asked for. */
import type { Engine, ModelInfo } from "../engine.ts";
import { RepriseError } from "../errors.ts";
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

/** The names that `/v1/models` lists. */
export function modelNames(model: ModelInfo): readonly string[] {
  return ["default", model.name];
}

/** Accepts the listed names, and the file's. @throws RequestRefused 404. */
export function checkModelName(name: string, model: ModelInfo): void {
  if ([...modelNames(model), `${model.name}.gguf`].includes(name)) return;
  throw new RequestRefused(404, "model_not_found", `There is no model of this name here; ask for "${model.name}".`, {
    field: "model",
  });
}
