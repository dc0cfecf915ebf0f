/** The house stands: every file says what it is for, and every import points down. */
import { basename } from "node:path";
import { expect, test } from "vitest";
import { floors, folders } from "../test/support/floors.ts";
import {
  arrowsUp,
  circles,
  purposeOf,
  readPython,
  readSources,
  roomOf,
  type Sources,
  withoutTestSupport,
} from "../test/support/sources.ts";

const all = readSources();
const sources = withoutTestSupport(all);

test("imports point to lower floors, types included", () => {
  expect(arrowsUp(sources)).toEqual([]);
});

test("no files import each other in a circle, types included", () => {
  expect(circles(all)).toEqual([]);
});

test("every room is on one floor, and there is no floor for a room that is gone", () => {
  const rooms = [...new Set([...sources.keys()].map(roomOf))];
  expect(floors.flat().toSorted()).toEqual(rooms.toSorted());
  const isFolder = (room: string) => !room.endsWith(".ts");
  expect(Object.keys(folders).toSorted()).toEqual(["", "cache", ...rooms.filter(isFolder)].toSorted());
});

/** What each file is for, by its path in the repository. */
function below(folder: string, files: Sources): (readonly [path: string, purpose: string | undefined])[] {
  return [...files].map(([path, source]) => [`${folder}/${path}`, purposeOf(source)]);
}

test("every file begins with what it is for, in a sentence of its own", () => {
  const purposes = [...below("src", all), ...below("python", readPython())];
  expect(purposes.flatMap(([path, purpose]) => (purpose === undefined ? [`${path} has no header`] : []))).toEqual([]);
  const says = (path: string, purpose = "") =>
    purpose.split(" ").length >= 4 && /[.?!]$/.test(purpose) && !purpose.includes(basename(path));
  const empty = purposes.filter(([path, purpose]) => !says(path, purpose));
  expect(empty.map(([path, purpose]) => `${path} does not say what it is for: ${purpose}`)).toEqual([]);
  const twice = purposes.filter(([path, purpose]) =>
    purposes.some(([other, same]) => other !== path && same === purpose),
  );
  expect(twice).toEqual([]);
});

test("a wrong import is found, and told with the one to turn", () => {
  const wrong = new Map([
    ["cache/cache.ts", ""],
    ["http/app.ts", ""],
    ["identity/wrong.ts", 'import type { Cache } from "../cache/cache.ts";'],
    ["tiers/disk/wrong.ts", 'export const later = () => import("../../http/app.ts");'],
  ]);
  expect(arrowsUp(wrong)).toEqual([
    expect.stringContaining("src/identity/wrong.ts imports src/cache/cache.ts: identity is not above cache/cache.ts"),
    expect.stringContaining("src/tiers/disk/wrong.ts imports src/http/app.ts: tiers/disk is not above http"),
  ]);
  const ring = new Map([
    ["a.ts", 'import { b } from "./b.ts";'],
    ["b.ts", 'import type { C } from "./c.ts";'],
    ["c.ts", 'export { a } from "./a.ts";'],
    ["d.ts", 'import "./b.ts";'],
  ]);
  expect(circles(ring)).toEqual([
    "src/a.ts → src/b.ts → src/c.ts → src/a.ts. Turn it: src/b.ts should not import src/c.ts",
  ]);
  const rooms = new Map([
    ["tier.ts", 'import { chunkKey } from "./identity/keys.ts";'],
    ["identity/keys.ts", 'import type { Tier } from "../tier.ts";'],
  ]);
  expect(circles(rooms)).toEqual([expect.stringContaining("src/identity/keys.ts should not import src/tier.ts")]);
  expect(arrowsUp(new Map([["attic/new.ts", ""]]))).toEqual([expect.stringContaining("src/attic is on no floor")]);
});
