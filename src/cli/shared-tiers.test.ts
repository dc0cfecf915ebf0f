import { expect, test } from "vitest";
import { openSharedTiers } from "./shared-tiers.ts";

test("a key file without a store to seal for is told, and nothing at all is nothing", () => {
  expect(openSharedTiers({})).toEqual([]);
  expect(() => openSharedTiers({ tierKeyFile: "/some/keys" })).toThrow(
    expect.objectContaining({
      code: "BAD_CONFIG",
      message: expect.stringMatching(/--tier-key-file is for --tier/) as string,
    }),
  );
});
