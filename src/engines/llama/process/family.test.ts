import { expect, test } from "vitest";
import { refusal } from "./family.ts";
import type { FamilyFacts } from "./family.ts";

const dense: FamilyFacts = {
  architecture: "llama",
  recurrent: false,
  hybrid: false,
  slidingWindow: 0,
  ropeType: 0,
  metadata: new Map([["llama.rope.freq_base", "10000"]]),
};

test.each<[string, Partial<FamilyFacts>]>([
  ["Llama", {}],
  ["Qwen (NeoX RoPE)", { architecture: "qwen3", ropeType: 2 }],
  ["YaRN", { metadata: new Map([["llama.rope.scaling.type", "yarn"]]) }],
  ["learned positions", { architecture: "gpt2", ropeType: -1 }],
])("%s is reused", (_, facts) => {
  expect(refusal({ ...dense, ...facts })).toBeUndefined();
});

test.each<[string, Partial<FamilyFacts>, string]>([
  ["Mamba", { recurrent: true }, "recurrent"],
  ["Qwen3-Next", { hybrid: true }, "hybrid"],
  ["Gemma", { slidingWindow: 512 }, "512"],
  ["Qwen2-VL", { ropeType: 8 }, "M-RoPE"],
  ["Qwen3-VL", { ropeType: 40 }, "M-RoPE"],
  ["DeepSeek", { architecture: "deepseek2", metadata: new Map([["deepseek2.attention.kv_lora_rank", "512"]]) }, "MLA"],
])("%s is refused, with the reason", (_, facts, reason) => {
  expect(refusal({ ...dense, ...facts })).toContain(reason);
});
