/** llama.cpp's own samplers, which ours must agree with: what they keep of logits, how likely they find it, and what they draw. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import koffi from "koffi";
import type { Sampling } from "../../src/engine.ts";
import { libraryPlaces } from "../../src/engines/llama/model/library-places.ts";

type Chain = bigint;

const { directory } = libraryPlaces({ gpu: "off", folder: undefined })[0]!; // refused above where there is none
const file = readdirSync(directory).find((name) => name.startsWith("libllama.") && name.includes("so"))!;
const library = koffi.load(join(directory, file));

koffi.struct("llama_sampler_chain_params", { no_perf: "bool" });
koffi.struct("llama_token_data_array", {
  data: "void*",
  size: "size_t",
  selected: "int64",
  sorted: "bool",
});
const newChain = library.func("void* llama_sampler_chain_init(llama_sampler_chain_params)");
const addToChain = library.func("void llama_sampler_chain_add(void*, void*)");
const freeChain = library.func("void llama_sampler_free(void*)");
const apply = library.func("void llama_sampler_apply(void*, _Inout_ llama_token_data_array*)");
const accept = library.func("void llama_sampler_accept(void*, int32)");
const sample = library.func("int32 llama_sampler_sample(void*, void*, int32)");
const topK = library.func("void* llama_sampler_init_top_k(int32)");
const topP = library.func("void* llama_sampler_init_top_p(float, size_t)");
const minP = library.func("void* llama_sampler_init_min_p(float, size_t)");
const temperature = library.func("void* llama_sampler_init_temp(float)");
const distribution = library.func("void* llama_sampler_init_dist(uint32)");
const greedy = library.func("void* llama_sampler_init_greedy()");
const bias = library.func("void* llama_sampler_init_logit_bias(int32, int32, void*)");
const penalties = library.func("void* llama_sampler_init_penalties(int32, int32, float, float, float)");

export class LlamaSamplers implements Disposable {
  readonly #chain: Chain;

  /** @param options.answer what was drawn so far */
  constructor(options: {
    sampling: Sampling;
    vocabularySize: number;
    prompt?: Uint32Array;
    answer?: readonly number[];
  }) {
    const { sampling, vocabularySize, prompt = new Uint32Array(0), answer = [] } = options;
    this.#chain = newChain({ no_perf: true }) as Chain;
    const add = (sampler: unknown) => addToChain(this.#chain, sampler);
    const { logitBias = [], repeatPenalty, frequencyPenalty, presencePenalty } = sampling;
    if (logitBias.length > 0) add(bias(vocabularySize, logitBias.length, biasBytes(logitBias)));
    if (repeatPenalty !== 1) {
      const repeat = penalties(vocabularySize, 64, repeatPenalty, 0, 0) as unknown;
      for (const token of prompt.subarray(-64)) accept(repeat, token);
      add(repeat);
    }
    if (frequencyPenalty !== 0 || presencePenalty !== 0)
      add(penalties(vocabularySize, 4096, 1, frequencyPenalty, presencePenalty));
    if (sampling.temperature === 0) add(greedy());
    else {
      if (sampling.topK > 0) add(topK(sampling.topK));
      if (sampling.topP < 1) add(topP(sampling.topP, 1));
      if (sampling.minP > 0) add(minP(sampling.minP, 1));
      add(temperature(sampling.temperature));
      add(distribution(sampling.seed ?? 1));
    }
    for (const token of answer) accept(this.#chain, token);
  }

  /** The tokens that are left of these logits, with their probabilities, by id. */
  probabilities(logits: Float32Array): Map<number, number> {
    const bytes = new ArrayBuffer(12 * logits.length);
    const view = new DataView(bytes);
    for (const [token, logit] of logits.entries()) {
      view.setInt32(12 * token, token, true);
      view.setFloat32(12 * token + 4, logit, true);
    }
    const left = { data: koffi.address(new Uint8Array(bytes)), size: logits.length, selected: -1, sorted: false };
    apply(this.#chain, left);
    const data = new DataView(koffi.view(left.data, 12 * left.size));
    const found = Array.from({ length: left.size }, (_, i): [number, number] => [
      data.getInt32(12 * i, true),
      data.getFloat32(12 * i + 8, true),
    ]);
    return new Map(found.sort(([a], [b]) => a - b));
  }

  /** As the engine would have it draw: from a context's logits. */
  sample(context: bigint, index: number): number {
    return sample(this.#chain, context, index) as number;
  }

  [Symbol.dispose](): void {
    freeChain(this.#chain);
  }
}

function biasBytes(biases: NonNullable<Sampling["logitBias"]>): Uint8Array {
  const bytes = new DataView(new ArrayBuffer(8 * biases.length));
  for (const [i, [token, value]] of biases.entries()) {
    bytes.setInt32(8 * i, token, true);
    bytes.setFloat32(8 * i + 4, value, true);
  }
  return new Uint8Array(bytes.buffer);
}
