/** The peer of our comparisons counts as built only when it answers right; stand-ins take its place here. */
import { execFile, spawnSync } from "node:child_process";
import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { temporaryDirectory } from "./support/data-directory.ts";
import { repositoryRoot } from "./support/repository.ts";

const peers = join(repositoryRoot, "bench", "peers");

/** A program that is started as llama-server would be. `socket` is where it is to listen. */
function standIn(body: string): () => string {
  return () => {
    const path = join(temporaryDirectory(), "stand-in.mjs");
    const socket = 'const socket = process.argv[process.argv.indexOf("--host") + 1];';
    writeFileSync(path, `#!${process.execPath}\nimport { createServer } from "node:http";\n${socket}\n${body}`);
    chmodSync(path, 0o755);
    return path;
  };
}

function answering(content: string): () => string {
  return standIn(`
    let asked = 0;
    createServer((request, response) => {
      const loading = ++asked < 3;
      response.writeHead(loading ? 503 : 200);
      response.end(JSON.stringify({ choices: [{ message: { content: ${JSON.stringify(content)} } }] }));
    }).listen(socket);`);
}

function ask(binary: string): Promise<{ code: number | string | null; said: string }> {
  return new Promise((resolve) => {
    execFile(process.execPath, [join(peers, "one-answer.mjs"), binary, "model.gguf"], (failure, _, said) => {
      resolve({ code: failure === null ? 0 : (failure.code ?? null), said });
    });
  });
}

describe("a peer", () => {
  test("that answers right once its model is loaded has been built", async () => {
    expect(await ask(answering("It was opened in October 1944.")())).toEqual({ code: 0, said: "" });
  });

  test.each([
    ["answers wrong", answering("In 1950."), 'answered "In 1950." where "October 1944" is right'],
    [
      "dies while it loads",
      standIn('process.stderr.write("loading\\n"); process.kill(process.pid, "SIGSEGV");'),
      "ended with SIGSEGV",
    ],
    [
      "refuses",
      standIn("createServer((_, response) => response.writeHead(500).end('no')).listen(socket);"),
      "answered 500: no",
    ],
    ["is not there", () => "/nonexistent/llama-server", "could not be started"],
  ])("that %s has not", async (_, binary, words) => {
    expect(await ask(binary())).toMatchObject({ code: 1, said: expect.stringContaining(words) as string });
  });
});

const compilers = ["cc", "c++"].filter(
  (compiler) => process.arch === "x64" && spawnSync(compiler, ["--version"]).status === 0,
);

/** What the compiler makes of the probe. */
function assembly(compiler: string, ...flags: readonly string[]): string {
  const language = compiler === "c++" ? "c++" : "c";
  const common = ["-O2", "-mamx-tile", "-S", "-o", "-", "-x", language, join(peers, "tile-config-probe.c")];
  const { status, stdout, stderr } = spawnSync(compiler, [...flags, ...common], { encoding: "utf8" });
  expect(status, stderr).toBe(0);
  return stdout;
}

describe.runIf(compilers.length > 0)("a tile configuration", () => {
  test.each(compilers)(
    "is stored whole by %s before it is loaded, with our declaration",
    (compiler) => {
      const ours = ["-include", join(peers, "whole-tile-config.h")];
      const stored = assembly(compiler, ...ours, "-DSTORE");
      expect(stored).not.toBe(assembly(compiler, ...ours));
      expect(stored.match(/ldtilecfg/g)).toHaveLength(1);
    },
    120_000,
  );
});
