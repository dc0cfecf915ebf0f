/** One of the models that were found, by the name that somebody typed. */
import { distance } from "fastest-levenshtein";
import { RepriseError } from "../errors.ts";
import type { FoundModel } from "./found-model.ts";

/** Of those that a name may mean. */
const mostListed = 10;
/** Names that are offered when none fits. */
const mostOffered = 3;

/**
 * The model of that name, whatever its case; else the only one of which a name begins so; else the only one that has it in a name.
 * Ollama's `:latest` may be left out.
 *
 * @throws RepriseError MODEL_NOT_FOUND, naming those that come near.
 */
export function modelNamed(typed: string, models: readonly FoundModel[]): FoundModel {
  const wanted = typed.toLowerCase();
  const named = (fits: (name: string) => boolean) =>
    models.filter((model) => namesOf(model).some((name) => fits(name.toLowerCase())));
  const steps: ((name: string) => boolean)[] = [
    (name) => name === wanted || name === `${wanted}:latest`,
    (name) => name.startsWith(wanted),
    (name) => name.includes(wanted),
  ];
  const found = steps.map((fits) => named(fits)).find((each) => each.length > 0) ?? [];
  if (found.length === 1) return found[0]!; // by its length
  if (found.length === 0)
    throw new RepriseError(
      "MODEL_NOT_FOUND",
      `there is no file "${typed}", and no model of that name was found on this machine${near(wanted, models)}; \`reprise models\` lists those that were`,
    );
  const isSame = new Set(found.map(({ name }) => name)).size === 1;
  const all = [...new Set(found.map(({ name, path }) => `  ${isSame ? path : name}`))];
  const rows = [
    ...all.slice(0, mostListed),
    ...(all.length > mostListed ? [`  and ${all.length - mostListed} more`] : []),
  ];
  throw new RepriseError(
    "MODEL_NOT_FOUND",
    `"${typed}" may be one of ${found.length} models; give the ${isSame ? "path" : "name"} of one:\n${rows.join("\n")}`,
  );
}

function namesOf({ name, otherNames }: FoundModel): readonly string[] {
  return [name, ...otherNames];
}

/** `; did you mean "x"?`, where some are not too different. */
function near(wanted: string, models: readonly FoundModel[]): string {
  const close = models
    .flatMap(namesOf)
    .map((name) => ({ name, differs: distance(wanted, name.toLowerCase()) }))
    .filter(({ name, differs }) => differs <= Math.max(wanted.length, name.length) / 3)
    .toSorted((a, b) => a.differs - b.differs)
    .slice(0, mostOffered);
  return close.length === 0 ? "" : `; did you mean ${close.map(({ name }) => `"${name}"`).join(" or ")}?`;
}
