import { defineConfig } from "vitest/config";

/** Parts that run engines, or time themselves, need both cores: one at a time, after the others. */
const wholeSystem = [
  "test/**/*.test.ts",
  "src/engines/**/*.test.ts",
  "bench/**/*.test.ts",
  "src/bench/overhead.test.ts",
];

export default defineConfig({
  // Examples import the package by its name, as users do.
  resolve: { alias: { reprise: new URL("src/index.ts", import.meta.url).pathname } },
  test: {
    testTimeout: 30_000,
    hookTimeout: 120_000,
    setupFiles: [new URL("test/support/spent-memory.ts", import.meta.url).pathname],
    pool: "forks",
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "parts",
          include: ["src/**/*.test.ts"],
          exclude: wholeSystem,
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: { name: "system", include: wholeSystem, fileParallelism: false, sequence: { groupOrder: 1 } },
      },
    ],
  },
});
