/** Directories that earlier releases wrote are read: every text in them is found, byte for byte. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { expect, test } from "vitest";
import { bareRoot, type Root } from "../src/identity/keys.ts";
import { DiskTier } from "../src/tiers/disk/disk-tier.ts";
import {
  counting,
  loadAndVerify,
  prefix,
  openTestCache,
  slotBytes,
  temporaryFolder,
  testPool,
  testSpace,
} from "./support/cache.ts";
import { repositoryRoot } from "./support/repository.ts";

const fixtures = join(repositoryRoot, "test/fixtures");
const MiB = 1024 * 1024;

interface KnownText {
  readonly length: number;
  readonly first: number;
  readonly root: Root;
  readonly ranks: number;
  readonly bytes: number;
}

/** As test/fixtures/disk-format-2/README.md lists them. */
const texts: readonly KnownText[] = [
  { length: 18, first: 1, root: bareRoot, ranks: 1, bytes: 512 },
  { length: 10, first: 100, root: { salt: "ada", adapter: "" }, ranks: 1, bytes: 700 },
  { length: 7, first: 200, root: { salt: "", adapter: "lora-1" }, ranks: 1, bytes: 4096 },
  { length: 12, first: 300, root: bareRoot, ranks: 2, bytes: 600 },
];

test.each(["disk-format-2/sealed", "disk-format-2/unsealed"])("%s is read whole", async (fixture) => {
  using folder = temporaryFolder();
  unpack(join(fixtures, fixture), folder.path);
  const pool = testPool();
  const disk = await DiskTier.open({
    drives: [{ directory: folder.path, capacityBytes: 4 * MiB }],
    regionBytes: MiB / 4,
  });
  await using cache = await openTestCache({ pool, tiers: [disk] });
  for (const { length, first, root, ranks, bytes } of texts) {
    for (let rank = 0; rank < ranks; rank += 1) {
      const session = cache.openSession({ space: testSpace({ tensorParallel: ranks }), rank, slotBytes: [slotBytes] });
      await cache.recovered(10_000);
      const { segments } = await session.lookup(root, counting(length, first), { deadlineMs: 10_000 });
      // The other rank's load has brought it into memory.
      expect(segments).toEqual(prefix([length, rank === 0 ? "disk" : "memory"]));
      expect(await loadAndVerify(session, pool, counting(length, first), { root, rank, bytes })).toBe(length);
    }
  }
  expect(cache.stats()).toMatchObject({ corruptRecords: 0, tiers: { disk: { failures: 0 } } });
  cache.check();
});

function unpack(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    const path = join(to, name.replace(/\.gz$/, ""));
    writeFileSync(path, gunzipSync(readFileSync(join(from, name))));
    chmodSync(path, 0o600);
  }
}
