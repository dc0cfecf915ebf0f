/** One of the models that were found, by the name that somebody typed. */
import { RepriseError } from "../errors.ts";
import type { FoundModel } from "./found-model.ts";

/**
 * The model of that name, whatever its case; else the only one whose name begins so. Ollama's `:latest` may be left out.
 *
 * @throws RepriseError MODEL_NOT_FOUND, naming those that come near.
 */
export function modelNamed(typed: string, models: readonly FoundModel[]): FoundModel {
  const wanted = typed.toLowerCase();
  const named = (fits: (name: string) => boolean) => models.filter(({ name }) => fits(name.toLowerCase()));
  const exact = named((name) => name === wanted || name === `${wanted}:latest`);
  const found = exact.length > 0 ? exact : named((name) => name.startsWith(wanted));
  if (found.length === 1) return found[0]!; // by its length
  if (found.length === 0)
    throw new RepriseError(
      "MODEL_NOT_FOUND",
      `there is no file "${typed}", and no model of that name was found on this machine; \`reprise models\` lists those that were`,
    );
  const isSame = new Set(found.map(({ name }) => name)).size === 1;
  const rows = found.map(({ name, path }) => `  ${isSame ? path : name}`);
  throw new RepriseError(
    "MODEL_NOT_FOUND",
    `"${typed}" may be one of ${found.length} models; give the ${isSame ? "path" : "name"} of one:\n${rows.join("\n")}`,
  );
}
