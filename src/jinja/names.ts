/** Which names a piece of a template reads. */
import type { Body } from "./syntax.ts";

/** All names that are read anywhere in `body`, also in the macros within. */
export function namesIn(body: Body): ReadonlySet<string> {
  const names = new Set<string>();
  const open: unknown[] = [body];
  for (let part = open.pop(); part !== undefined; part = open.pop()) {
    if (Array.isArray(part)) for (const each of part as unknown[]) open.push(each);
    else if (isNode(part)) {
      if (part["kind"] === "name" && "line" in part && typeof part["name"] === "string") names.add(part["name"]);
      if (part["kind"] === "constant") continue;
      for (const value of Object.values(part)) if (typeof value === "object") open.push(value);
    }
  }
  return names;
}

/** Targets have a kind "name" too, and no line: they are written, not read. */
function isNode(part: unknown): part is Readonly<Record<string, unknown>> {
  return typeof part === "object" && part !== null && !(part instanceof Set);
}
