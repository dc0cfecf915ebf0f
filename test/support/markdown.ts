/** Markdown pages as data: where their links lead, and what their headings are called in links. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { repositoryRoot } from "./repository.ts";

export interface Page {
  /** In the order of the page; of what is written in code none. */
  readonly links: readonly { readonly target: string; readonly line: number }[];
  /** Ids of the headings, as GitHub makes them. */
  readonly anchors: ReadonlySet<string>;
}

export function readPage(markdown: string): Page {
  const links: { target: string; line: number }[] = [];
  const anchors = new Set<string>();
  let fence: string | undefined;
  for (const [index, raw] of markdown.split("\n").entries()) {
    const [, mark] = /^\s*(?:> ?)?(`{3,}|~{3,})/.exec(raw) ?? [];
    if (mark !== undefined && (fence === undefined || mark.startsWith(fence))) {
      fence = fence === undefined ? mark : undefined;
      continue;
    }
    if (fence !== undefined) continue;
    const [, heading] = /^#{1,6} +(.*?)(?: +#+)?$/.exec(raw) ?? [];
    if (heading !== undefined) anchors.add(anchorOf(heading, anchors));
    const text = raw.replaceAll(/(`+).*?\1/g, "");
    // A target with spaces is none to GitHub: it stays text. Found here, it fails as a link to a file that does not exist.
    const inline = text.matchAll(/\]\(<?((?:[^()]|\([^()]*\))*?)>?(?: +"[^"]*")?\)/g);
    const defined = text.matchAll(/^\[[^\]]+\]: *(\S+)/g);
    const tags = text.matchAll(/\b(?:href|src)="([^"]*)"/g);
    const bare = text.replaceAll(/\]\([^)]*\)/g, "]").matchAll(/\b(https?:\/\/[^\s<>"|]+?)[.,;:)]*(?=[\s<>"|]|$)/g);
    for (const [, target = ""] of [...inline, ...defined, ...tags, ...bare]) links.push({ target, line: index + 1 });
  }
  return { links, anchors };
}

/** GitHub's id of a heading: its words in small letters, with hyphens between them; numbered where it comes again. */
function anchorOf(heading: string, taken: ReadonlySet<string>): string {
  const text = heading.replaceAll(/!?\[([^\]]*)\]\([^)]*\)/g, "$1");
  const words = text.toLowerCase().replaceAll(/[^\p{L}\p{M}\p{N}\p{Pc} -]/gu, "");
  const anchor = words.trim().replaceAll(" ", "-");
  for (let again = 0; ; again += 1) {
    const id = again === 0 ? anchor : `${anchor}-${again}`;
    if (!taken.has(id)) return id;
  }
}

/** Every file of the repository, by its path; without links to files, and without what is installed, built or kept between runs. */
export function repositoryFiles(folder = ""): string[] {
  const skipped = /^(?:node_modules|dist|__pycache__|\..*)$/;
  return readdirSync(join(repositoryRoot, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return skipped.test(entry.name) ? [] : repositoryFiles(path);
    return entry.isFile() ? [path] : [];
  });
}
