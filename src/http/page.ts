/**
 * The page at `/`: the files of one folder, read once and served from memory. A path is looked up in that list and never
 * joined to a folder, so that there is nothing to traverse.
 */
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { extname, join } from "node:path";

export interface Page {
  /** The file at `path` (`/` is index.html), or undefined when the page has none. */
  answer(path: string, headers: Headers): Promise<Response | undefined>;
}

/** @param directory flat; files of unknown type are not served. */
export function createPage(directory: string): Page {
  let files: Promise<ReadonlyMap<string, PageFile>> | undefined;
  return {
    async answer(path, headers) {
      files ??= readFiles(directory);
      const file = (await files).get(path === "/" ? "/index.html" : path);
      if (file === undefined) return undefined;
      const unchanged = headers.get("if-none-match") === file.etag;
      return new Response(unchanged ? null : file.bytes, {
        status: unchanged ? 304 : 200,
        headers: { ...pageHeaders, etag: file.etag, "content-type": file.type },
      });
    },
  };
}

interface PageFile {
  readonly bytes: Buffer<ArrayBuffer>;
  readonly type: string;
  readonly etag: string;
}

async function readFiles(directory: string): Promise<ReadonlyMap<string, PageFile>> {
  const files = new Map<string, PageFile>();
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    const type = contentTypes[extname(entry.name)];
    if (!entry.isFile() || type === undefined) continue;
    const bytes = await readFile(join(directory, entry.name));
    const etag = `"${createHash("sha256").update(bytes).digest("base64url").slice(0, 22)}"`;
    files.set(`/${entry.name}`, { bytes, type, etag });
  }
  return files;
}

const contentTypes: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml",
  ".txt": "text/plain; charset=utf-8",
};

/** The page loads its own files and speaks to its own server; nothing else, and nobody may frame it. */
const pageHeaders = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "cache-control": "no-cache",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
} as const;
