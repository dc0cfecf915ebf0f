/** A real engine process over a tiny model, and a real cache beside it. */
import { join } from "node:path";
import { greedy } from "../../src/engine.ts";
import type { GenerateEvent, GenerateRequest, PromptReport } from "../../src/engine.ts";
import type { EngineSettings } from "../../src/engines/llama/engine-settings.ts";
import { LlamaEngine } from "../../src/engines/llama/server/engine.ts";
import type { LlamaEngineOptions } from "../../src/engines/llama/server/engine.ts";
import { silentLog } from "../../src/log.ts";
import { WireServer } from "../../src/wire/cache/server.ts";
import { openTestCache, temporaryFolder, testPool } from "./cache.ts";
import { writeTinyGguf } from "./tiny-gguf.ts";
import type { TinyModel } from "./tiny-gguf.ts";

/** Big enough that reading its context takes seconds. */
export const slowModel = {
  family: "llama",
  layers: 12,
  embedding: 384,
  heads: 6,
  keyValueHeads: 2,
  feedForward: 1024,
  vocabulary: 8192,
  context: 8192,
} as const;

export interface Answer {
  readonly report: PromptReport;
  readonly text: string;
  readonly tokens: readonly number[];
  readonly end: Extract<GenerateEvent, { kind: "end" }>;
}

/** A folder with a model in it, and engines over that model. */
export class EngineBench implements AsyncDisposable {
  readonly modelPath: string;
  readonly #folder = temporaryFolder();
  readonly #opened: AsyncDisposable[] = [];

  constructor(model: TinyModel | { readonly path: string } = { family: "llama" }) {
    this.modelPath = "path" in model ? model.path : join(this.#folder.path, "tiny.gguf");
    if (!("path" in model)) writeTinyGguf(this.modelPath, model);
  }

  get path(): string {
    return this.#folder.path;
  }

  start(
    settings: Partial<EngineSettings> = {},
    options: Partial<Omit<LlamaEngineOptions, "settings">> = {},
  ): LlamaEngine {
    const engine = LlamaEngine.start({
      settings: {
        contextTokens: 1024,
        sequences: 2,
        threads: 1,
        gpu: "off",
        gpuLayers: undefined,
        deterministic: false,
        draft: "off",
        socketPath: undefined,
        ...settings,
      },
      modelPath: this.modelPath,
      dataDirectory: this.#folder.path,
      maxWaiting: 10,
      log: silentLog,
      ...options,
    });
    this.#opened.unshift(engine);
    return engine;
  }

  /** A cache with a wire; guests connect at `socketPath`. */
  async openCache(options: { capacityBytes?: number; socketPath?: string } = {}) {
    const { capacityBytes = 256 * 2 ** 20, socketPath = join(this.#folder.path, "cache.sock") } = options;
    const cache = await openTestCache({ pool: testPool(capacityBytes) });
    const server = await WireServer.listen({ socketPath, cache });
    // Guests go first, then the door, then the house.
    this.#opened.push(server, cache);
    return { cache, server, socketPath };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const opened of this.#opened) await opened[Symbol.asyncDispose]();
    this.#folder[Symbol.dispose]();
  }
}

export function request(prompt: GenerateRequest["prompt"], change: Partial<GenerateRequest> = {}): GenerateRequest {
  return {
    prompt,
    sampling: greedy,
    maxTokens: 8,
    stop: [],
    ignoreEnd: true,
    cache: { salt: "", read: true, save: true },
    ...change,
  };
}

/** Runs a request to its end. */
export async function ask(
  engine: LlamaEngine,
  prompt: GenerateRequest["prompt"],
  change: Partial<GenerateRequest> = {},
): Promise<Answer> {
  let report: PromptReport | undefined;
  const texts: Extract<GenerateEvent, { kind: "text" }>[] = [];
  for await (const event of engine.generate(request(prompt, change), new AbortController().signal)) {
    if (event.kind === "prompt") report = event.report;
    else if (event.kind === "text") texts.push(event);
    else {
      const text = texts.map((event) => event.text).join("");
      return { report: report!, text, tokens: texts.flatMap((event) => event.tokens), end: event }; // the report came first
    }
  }
  throw new Error("an answer without an end");
}

/** Waits until `holds`, by looking; fails after ten seconds. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await holds())) {
    if (performance.now() > end) throw new Error("waited for ten seconds in vain");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}
