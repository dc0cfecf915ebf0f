import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["src/**/*.test.ts", "test/**/*.test.ts", "models/**/*.test.ts", "bench/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 120_000,
    // Whole-system tests start servers of their own: two at a time is what two cores carry.
    maxWorkers: 2,
    pool: "forks",
  },
});
