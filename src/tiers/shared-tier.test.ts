import { SharedStore, SharedTier } from "../../test/support/shared-tier.ts";
import { tierSuite } from "./tier-suite.ts";

tierSuite("a shared store", () => {
  const capacityBytes = 4 * 1024 * 1024;
  const store = new SharedStore(capacityBytes);
  return Promise.resolve({
    capacityBytes,
    open: () => Promise.resolve(new SharedTier(store)),
    dispose: async () => {},
  });
});
