/** NIXL's own library for tests, where it is here: `.ci/run` installs the wheel and says where. */
import { join } from "node:path";
import { silentLog } from "../../src/log.ts";
import { parseNixlAddress } from "../../src/tiers/nixl/address.ts";
import { findNixl } from "../../src/tiers/nixl/library.ts";
import { NixlStore } from "../../src/tiers/nixl/nixl-store.ts";
import { ValueTier, type ValueTierOptions } from "../../src/tiers/shared/value-tier.ts";

/** The folder into which the wheel was installed; "" where it is not here. Where CI is set it must be. */
export const wheel = process.env["REPRISE_TEST_NIXL"] ?? "";
export const isHere = wheel !== "" || process.env["CI"] !== undefined;
export const maxRecordBytes = 4 * 1024 * 1024;

if (!isHere) process.stderr.write("NIXL is not tested: REPRISE_TEST_NIXL (.ci/run) is not set.\n");

/** @param address as `--tier` has it, without the library */
export function storeOf(address: string): NixlStore {
  const parsed = parseNixlAddress(`${address}${address.includes("?") ? "&" : "?"}library=${wheel}`, {});
  return new NixlStore({ address: parsed, library: findNixl(parsed.library, parsed.plugin), log: silentLog });
}

export function tierOf(address: string, options: Partial<ValueTierOptions> = {}): ValueTier {
  return new ValueTier({ store: storeOf(address), keys: [], prefix: "", maxRecordBytes, ...options });
}

/** Where a value lies in a shared folder. */
export function fileOf(folder: string, name: string): string {
  const file = name.replaceAll(":", "-");
  return join(folder, file.slice(0, 1), file.slice(1, 3), file);
}
