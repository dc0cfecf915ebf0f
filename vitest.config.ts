import { defineConfig } from "vitest/config";
import { isFull } from "./test/support/depth.ts";

/** Whole servers and engines. At full depth servers' engines compute with as many threads as a user's: those need the cores for themselves. */
const wholeSystem = ["test/**/*.test.ts", "src/engines/**/*.test.ts", "bench/**/*.test.ts"];
/** These time themselves, so nothing runs beside them. */
const timed = [
  "src/bench/overhead.test.ts",
  "src/engines/llama/process/scheduler.test.ts",
  "src/engines/llama/server/{engine,tokenizer}.test.ts",
  "test/large-texts.test.ts",
  "test/openai-client.test.ts",
  "test/terminal-page.test.ts",
];

export default defineConfig({
  // Examples import the package by its name, as users do.
  resolve: { alias: { reprise: new URL("src/index.ts", import.meta.url).pathname } },
  test: {
    testTimeout: 30_000,
    hookTimeout: 120_000,
    globalSetup: [new URL("test/support/run.ts", import.meta.url).pathname],
    setupFiles: [new URL("test/support/poisoned-memory.ts", import.meta.url).pathname],
    pool: "forks",
    maxWorkers: 2,
    projects: [
      {
        extends: true,
        test: {
          name: "parts",
          include: ["src/**/*.test.ts"],
          exclude: [...wholeSystem, ...timed],
          sequence: { groupOrder: 0 },
        },
      },
      {
        extends: true,
        test: {
          name: "system",
          include: wholeSystem,
          exclude: timed,
          fileParallelism: !isFull,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: { name: "timed", include: timed, fileParallelism: false, sequence: { groupOrder: 2 } },
      },
    ],
  },
});
