/** A model by its name, where another program has put it: listed by `reprise models`, served under that name. */
import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "./support/data-directory.ts";
import { commandPath, shippedModelPath } from "./support/repository.ts";
import { launchServer, startServer } from "./support/server.ts";

/** A home in which Ollama has pulled the shipped model as `demo:22m`; its blob has no name that anybody would know. */
function homeWithOllama(): string {
  const home = temporaryDirectory();
  const models = join(home, ".ollama", "models");
  const hex = "5a".repeat(32);
  const manifests = join(models, "manifests", "registry.ollama.ai", "library", "demo");
  for (const folder of [join(models, "blobs"), manifests]) mkdirSync(folder, { recursive: true });
  copyFileSync(shippedModelPath, join(models, "blobs", `sha256-${hex}`));
  const layers = [{ mediaType: "application/vnd.ollama.image.model", digest: `sha256:${hex}` }];
  writeFileSync(join(manifests, "22m"), JSON.stringify({ schemaVersion: 2, layers }));
  return home;
}

test("a model that Ollama has pulled is listed, and served in place under Ollama's name", async () => {
  const environment = { HOME: homeWithOllama(), PATH: "/nowhere" };
  const list = execFileSync(process.execPath, [commandPath, "models"], { encoding: "utf8", env: environment });
  expect(list).toMatch(/^name +architecture +from +file +size$/m);
  expect(list).toMatch(/^demo:22m +llama +Ollama +~\/\.ollama\/models\/blobs\/sha256-5a\S+ +22\.6 MiB$/m);

  const server = await startServer({
    dataDirectory: temporaryDirectory(),
    environment,
    flags: ["--model", "demo", "--memory", "64MiB"],
  });
  onTestFinished(() => server.killAll());
  expect(server.output()).toContain("demo:22m: ");
  const models = (await (await fetch(`${server.url}/v1/models`)).json()) as { data: { id: string }[] };
  expect(models.data[0]?.id).toBe("demo:22m");
}, 60_000);

test("what a file is called cannot steer the terminal", () => {
  const folder = temporaryDirectory();
  copyFileSync(shippedModelPath, join(folder, "a\u001b[2J\nb\u202e.gguf"));
  const list = execFileSync(process.execPath, [commandPath, "models", "--models-dir", folder], { encoding: "utf8" });
  expect(list).toContain("a\u{fffd}[2J\u{fffd}b\u{fffd} ");
  expect(list).not.toMatch(/[^\P{C}\n]/u);
});

test("a name that several models have, or none, is told in words, with what to type instead", async () => {
  const folder = temporaryDirectory();
  for (const name of ["chat-q4.gguf", "chat-q8.gguf"]) copyFileSync(shippedModelPath, join(folder, name));
  const say = async (model: string) => {
    const flags = ["--models-dir", folder, "--model", model];
    const started = launchServer({ dataDirectory: temporaryDirectory(), flags });
    onTestFinished(() => started.killAll());
    return { ...(await started.ended), said: started.output() };
  };
  const several = await say("chat");
  expect(several).toMatchObject({ code: 1 });
  expect(several.said).toMatch(/"chat" may be one of 2 models; give the name of one:\n.*chat-q4\n.*chat-q8\n/);
  expect(await say("chit")).toMatchObject({ code: 1, said: expect.stringContaining("`reprise models`") as string });
  const nowhere = launchServer({
    dataDirectory: temporaryDirectory(),
    flags: ["--models-dir", "/nope", "--model", "x"],
  });
  onTestFinished(() => nowhere.killAll());
  expect(await nowhere.ended).toMatchObject({ code: 2 });
  expect(nowhere.output()).toContain("--models-dir /nope: there is no such folder");
});
