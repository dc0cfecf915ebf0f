import { execFile } from "node:child_process";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { commandPath } from "../../test/support/repository.ts";
import { temporaryDirectory } from "../../test/support/data-directory.ts";
import { bareRoot } from "../identity/keys.ts";
import { opaqueSpace, spaceId, type SpaceId } from "../identity/space.ts";
import { createLog, silentLog } from "../log.ts";
import { CacheHost } from "./cache-host.ts";
import { ModelNames, readModelNames } from "./model-names.ts";
import { connectCache } from "../wire/guest/link.ts";

const space = (number: number) => number.toString(16).padStart(64, "0") as SpaceId;

test("names are kept across restarts, and nothing is written for one that is known", async () => {
  const directory = temporaryDirectory();
  const names = ModelNames.open(directory, silentLog);
  names.note(space(1), "Llama 3.1 8B");
  names.note(space(2), "");
  await names.written();
  const file = join(directory, "models.json");
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(readModelNames(directory, silentLog)).toEqual(new Map([[space(1), "Llama 3.1 8B"]]));

  const before = statSync(file).ino; // each writing replaces the file
  const again = ModelNames.open(directory, silentLog);
  again.note(space(1), "Llama 3.1 8B");
  await again.written();
  expect(statSync(file).ino).toBe(before);
  again.note(space(1), "Llama 3.1 8B, other name");
  await again.written();
  expect(readModelNames(directory, silentLog).get(space(1))).toBe("Llama 3.1 8B, other name");
});

test("what a guest says becomes one short line of plain characters", async () => {
  const directory = temporaryDirectory();
  const names = ModelNames.open(directory, silentLog);
  names.note(space(1), `a\u001b[31m\nb\u202e\u2028${"c".repeat(5000)}`);
  names.note(space(2), "\u0007\n");
  await names.written();
  expect([...readModelNames(directory, silentLog)]).toEqual([[space(1), `a[31mb${"c".repeat(94)}`]]);
});

test("a thousand names are kept, the newest", async () => {
  const directory = temporaryDirectory();
  const names = ModelNames.open(directory, silentLog);
  for (let i = 0; i < 1200; i += 1) names.note(space(i), `model ${i}`);
  await names.written();
  const kept = [...readModelNames(directory, silentLog).values()];
  expect([kept.length, kept[0], kept.at(-1)]).toEqual([1000, "model 200", "model 1199"]);
});

test.each([
  ["no JSON", "{"],
  ["no object", "7"],
  ["names of nothing and values that are no names", JSON.stringify({ x: "y", [space(1)]: 7, [space(2)]: "a\nb" })],
])("a file with %s gives no name, and the next name replaces it", async (_, content) => {
  const directory = temporaryDirectory();
  const lines: string[] = [];
  const log = createLog({ level: "warn", write: (line) => void lines.push(line) });
  writeFileSync(join(directory, "models.json"), content, { mode: 0o600 });
  const names = ModelNames.open(directory, log);
  expect(readModelNames(directory, log).size).toBe(0);
  names.note(space(3), "new");
  await names.written();
  expect(JSON.parse(readFileSync(join(directory, "models.json"), "utf8"))).toEqual({ [space(3)]: "new" });
});

test("inspect names the model of what a guest has stored", async () => {
  const directory = temporaryDirectory();
  const config = { dataDir: directory, memory: 64 << 20, poolDir: "", scrubDays: 0, socket: "" };
  const disk = [{ directory: undefined, bytes: 64 << 20 }];
  await using host = await CacheHost.open({ config: { ...config, disk }, log: silentLog });
  const description = opaqueSpace("test", "ab".repeat(32), 16);
  const options = { space: description, rank: 0, slotBytes: [4096], model: "My model Q8" };
  const link = await connectCache({ ...options, socketPath: host.socketPath, log: silentLog, onPoolChanged() {} });
  const session = host.cache.openSession({ space: description, rank: 0, slotBytes: [4096] });
  const tokens = Uint32Array.from({ length: 16 }, (_, i) => i);
  const { parts } = await session.reserve(bareRoot, tokens, { deadlineMs: 5000 });
  await session.commit(
    parts.map(({ lease }) => ({ lease, bytes: 4096 })),
    { deadlineMs: 5000 },
  );
  await host.cache.flush();
  await session.close();
  await link.close();
  const inspect = async (...flags: readonly string[]) =>
    (await promisify(execFile)(process.execPath, [commandPath, "inspect", directory, ...flags])).stdout;
  expect(JSON.parse(await inspect("--json"))).toMatchObject({
    disk: { spaces: [{ model: "My model Q8", space: spaceId(description), chunks: 1 }] },
  });
  const page = await inspect();
  expect(page).toMatch(/^model +space/m);
  expect(page).toMatch(/^My model Q8 +[0-9a-f]{12}/m);
});
