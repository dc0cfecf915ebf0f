import { defineConfig } from "vitest/config";

export default defineConfig({
  // Examples import the package by its name, as users do.
  resolve: { alias: { reprise: new URL("src/index.ts", import.meta.url).pathname } },
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "models/**/*.test.ts", "bench/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Whole-system tests start servers of their own: two at a time is what two cores carry.
    maxWorkers: 2,
    pool: "forks",
  },
});
