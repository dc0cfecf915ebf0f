import { expect, test } from "vitest";
import { TiledAttention } from "./tiled-attention.ts";

test("costs are proportional to what was measured", () => {
  // Processor time in ms of a step after 1,260 tokens: the shipped model, llama.cpp v0.5.0 on Xeon cores with AVX-512.
  const measured = {
    1: [
      [25, 73],
      [32, 99],
      [46, 131],
      [63, 182],
      [64, 90],
      [96, 156],
      [128, 167],
    ],
    2: [
      [46, 132],
      [64, 120],
      [128, 196],
      [192, 289],
      [256, 339],
      [384, 558],
      [512, 708],
    ],
  } as const;
  for (const threads of [1, 2] as const) {
    const attention = new TiledAttention({ layers: 12, heads: 6, headSize: 64, parameters: 22e6, threads });
    const ratios = measured[threads].map(([rows, ms]) => attention.cost(rows, 1260) / ms);
    const mean = ratios.reduce((sum, ratio) => sum + ratio) / ratios.length;
    for (const ratio of ratios) expect(Math.abs(ratio / mean - 1)).toBeLessThan(0.15);
  }
});
