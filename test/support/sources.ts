/** The files of src/ as data: their imports, their headers, and what is wrong with either. Of Python's packages the headers. */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { floors } from "./floors.ts";
import { repositoryRoot } from "./repository.ts";

/** Source texts by path below src/, or below python/. */
export type Sources = ReadonlyMap<string, string>;

/** Every file that is no test. */
export function readSources(): Sources {
  return readBelow("src", (path) => /\.(ts|mjs)$/.test(path) && !path.endsWith(".test.ts"));
}

/** The modules of Python's packages. */
export function readPython(): Sources {
  return readBelow("python", (path) => /^reprise(_\w+)?\/.*\.py$/.test(path));
}

function readBelow(folder: string, isSource: (path: string) => boolean): Sources {
  const root = join(repositoryRoot, folder);
  const paths = readdirSync(root, { recursive: true, encoding: "utf8" }).filter(isSource).toSorted();
  return new Map(paths.map((path) => [path, readFileSync(join(root, path), "utf8")]));
}

/** The parts of a server, without what only tests import. */
export function withoutTestSupport(sources: Sources): Sources {
  return new Map([...sources].filter(([path]) => !/(^|\/)fake-|-suite\.ts$/.test(path)));
}

/** Files below src/ that a file names: imports, exports and types, and those that come only when they are needed. */
export function importsOf(path: string, sources: Sources): string[] {
  const named = (sources.get(path) ?? "").matchAll(/\b(?:from|import)\s*\(?\s*"(\.[^"]+)"/g);
  return [...new Set([...named].map(([, to]) => normalize(join(dirname(path), to!))))].filter((to) => sources.has(to));
}

export function roomOf(path: string): string {
  const folder = dirname(path);
  return folder === "." || folder === "cache" ? path : folder;
}

/** Imports that go up, or to another room of the same floor. None: then no circle between rooms can be. */
export function arrowsUp(sources: Sources): string[] {
  const unknown = [...new Set([...sources.keys()].filter((path) => floorOf(path) === -1).map(roomOf))];
  if (unknown.length > 0)
    return unknown.map((room) => `src/${room} is on no floor: give it one in test/support/floors.ts`);
  return [...sources.keys()].flatMap((from) =>
    importsOf(from, sources).flatMap((to) => {
      const [above, below] = [roomOf(from), roomOf(to)];
      if (above === below || floorOf(from) < floorOf(to)) return [];
      return `src/${from} imports src/${to}: ${above} is not above ${below}. Turn it: move what it needs to a lower floor, or pass it in`;
    }),
  );
}

/** Circles between files: of those that hang together the shortest, with the import to turn. */
export function circles(sources: Sources): string[] {
  const imports = new Map([...sources.keys()].map((path) => [path, importsOf(path, sources)]));
  const fanIn = new Map<string, number>();
  for (const to of [...imports.values()].flat()) fanIn.set(to, (fanIn.get(to) ?? 0) + 1);
  const rings = [...sources.keys()].flatMap((path) => {
    const ring = shortestRing(path, imports);
    return ring === undefined ? [] : [ring];
  });
  const told = new Set<string>();
  return rings
    .toSorted((a, b) => a.length - b.length)
    .flatMap((ring) => {
      if (ring.some((path) => told.has(path))) return [];
      for (const other of rings)
        if (other.some((path) => ring.includes(path))) for (const path of other) told.add(path);
      const [from, to] = importToTurn(ring, fanIn);
      return `src/${[...ring, ring[0]].join(" → src/")}. Turn it: src/${from} should not import src/${to}`;
    });
}

/** Files that import each other in a row from `start` back to it. */
function shortestRing(start: string, imports: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const cameFrom = new Map<string, string>();
  const queue = [start];
  for (let at = queue.shift(); at !== undefined && !cameFrom.has(start); at = queue.shift())
    for (const to of imports.get(at) ?? [])
      if (!cameFrom.has(to)) {
        cameFrom.set(to, at);
        queue.push(to);
      }
  const last = cameFrom.get(start);
  if (last === undefined) return undefined;
  const ring: string[] = [];
  for (let at = last; at !== start; at = cameFrom.get(at)!) ring.unshift(at); // the search came through it
  return [start, ...ring];
}

/** The one that goes up; in one room, that of the file whom most others build on. */
function importToTurn(ring: readonly string[], fanIn: ReadonlyMap<string, number>): readonly [string, string] {
  const arrows = ring.map((from, index) => [from, ring[(index + 1) % ring.length]!] as const); // a ring has no end
  const isUp = ([from, to]: readonly [string, string]) => floorOf(from) > floorOf(to);
  return arrows.find(isUp) ?? arrows.reduce((a, b) => (fanIn.get(b[0])! > fanIn.get(a[0])! ? b : a)); // all are imported
}

/** The number of the file's floor, from the top. */
function floorOf(path: string): number {
  return floors.findIndex((rooms) => rooms.includes(roomOf(path)));
}

/** The first sentence of a file's header, or of a module's docstring, on one line. Undefined without one. */
export function purposeOf(source: string): string | undefined {
  const begin = source.replace(/^#!.*\n/, "");
  const [, inStars, inSlashes, inQuotes] = /^(?:\/\*\*([^]*?)\*\/|((?:\/\/.*\n)+)|r?"""([^]*?)""")/.exec(begin) ?? [];
  const header = inStars ?? inSlashes ?? inQuotes;
  if (header === undefined) return undefined;
  const text = header.replaceAll(/^[ \t]*(?:\*|\/\/) ?/gm, "").trim();
  const [first = ""] = text.split(/\n\s*\n/);
  const line = first.replaceAll(/\s+/g, " ").replaceAll(/\{@link (?:[^}]*\/)?([^}/]+)\}/g, "`$1`");
  return (/^.*?[.?!](?= |$)/.exec(line)?.[0] ?? line).replace(/[:,;]?$/, (end) => (line.length > 0 && end ? "." : end));
}
