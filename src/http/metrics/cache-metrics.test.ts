import { Registry } from "prom-client";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../../test/support/cache.ts";
import { noSignal, recordOf, recoverAll } from "../../tiers/tier-suite.ts";
import { DiskTier } from "../../tiers/disk/disk-tier.ts";
import { figureSource, type Figure } from "../../figures.ts";
import { diskFigures } from "../../tiers/disk/disk-figures.ts";
import { showFigures } from "./cache-metrics.ts";

test("a disk tier's drives, its garbage, its recovery and its search for rot are told", async () => {
  using folder = temporaryFolder();
  const directory = folder.path;
  await using tier = await DiskTier.open({
    drives: [{ directory, capacityBytes: 8 * 2 ** 20 }],
    scrubBytesPerSecond: 2 ** 30,
  });
  const registry = new Registry();
  const show = showFigures(registry, [figureSource(diskFigures, () => tier.stats())]);
  const figures = async () => {
    show();
    return registry.metrics();
  };
  expect(await figures()).toContain("reprise_disk_recovering 1\n");
  await recoverAll(tier);
  const payload = Buffer.alloc(9000, 7);
  for (const i of [1, 2]) {
    const id = await tier.write(recordOf(Uint32Array.from([i]), [payload]), [payload], noSignal);
    if (i === 1 && id !== "rejected") tier.drop(id);
  }
  await expect.poll(figures, { timeout: 10_000 }).toMatch(/reprise_disk_scrub_rounds_total [1-9]/);
  const text = await figures();
  for (const line of [
    "reprise_disk_drives 1",
    "reprise_disk_recovering 0",
    "reprise_disk_live_bytes 16384",
    "reprise_disk_torn_records_total 0",
    `reprise_disk_drive_bytes{drive="${directory}"} ${tier.stats().usedBytes}`,
    `reprise_disk_drive_capacity_bytes{drive="${directory}"} ${8 * 2 ** 20}`,
    `reprise_disk_drive_errors_total{drive="${directory}"} 0`,
  ])
    expect(text.split("\n")).toContain(line);
  expect(text).toMatch(/reprise_disk_scrubbed_bytes_total [1-9]/);
});

test("odd figures break nothing, and what is gone is shown no more", async () => {
  const registry = new Registry();
  const figures: Figure<Record<string, number>>[] = [
    { name: "odd_total", kind: "counter", help: "-", label: "tier", read: (values) => Object.entries(values) },
    { name: "one", kind: "gauge", help: "-", read: ({ disk }) => disk },
    { name: "two", kind: "gauge", help: "-", label: ["tier", "state"], read: () => [[["disk", "up"], 1]] },
  ];
  let values: Record<string, number> = { disk: Number.NaN, memory: -1, other: 7 };
  const show = showFigures(registry, [figureSource(figures, () => values)]);
  show();
  show();
  const lines = async () => (await registry.metrics()).split("\n").filter((line) => /^[^#]/.test(line));
  expect(await lines()).toEqual(['odd_total{tier="other"} 7', "one 0", 'two{tier="disk",state="up"} 1']);
  values = { disk: 2 };
  show();
  expect(await lines()).toEqual(['odd_total{tier="disk"} 2', "one 2", 'two{tier="disk",state="up"} 1']);
});
