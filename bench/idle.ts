/**
 * What does a server cost that nobody asks? One that has answered a prompt of 3,915 tokens twice, and has it on disk, is left
 * alone: its share of a core, and what it reads from and writes to the drive meanwhile.
 *
 *     npm run bench -- idle [--minutes 10]
 *
 * The minute before is not counted: hits are saved in it.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { treeCost, treeTraffic } from "../src/bench/process-tree.ts";
import { repositoryRoot } from "../test/support/repository.ts";
import { startServer } from "../test/support/server.ts";
import { printLine, rounded } from "./support/timing.ts";

const { values } = parseArgs({ options: { minutes: { type: "string", default: "10" } } });
const minutes = Number(values.minutes);
const minuteMs = 60_000;

const dataDirectory = mkdtempSync(join(tmpdir(), "reprise-idle-"));
const server = await startServer({ dataDirectory });
try {
  const body = readFileSync(join(repositoryRoot, "examples", "long-prompt.json"));
  for (let ask = 0; ask < 2; ask += 1) {
    const init = { method: "POST", headers: { "content-type": "application/json" }, body };
    const answer = await fetch(`${server.url}/v1/chat/completions`, init);
    if (!answer.ok) throw new Error(`the prompt was answered with ${answer.status}`);
    await answer.text();
  }
  await pause(1.2 * minuteMs);
  const stats = (await (await fetch(`${server.url}/cache/stats`)).json()) as { readonly unsavedChunks: number };
  if (stats.unsavedChunks > 0) throw new Error(`${stats.unsavedChunks} chunks are not on disk yet`);
  const [cost, traffic] = [treeCost(server.pid), treeTraffic(server.pid)];
  await pause(minutes * minuteMs);
  const [later, moved] = [treeCost(server.pid), treeTraffic(server.pid)];
  printLine(
    "idle",
    {
      percentOfACore: rounded((100 * (later.cpuSeconds - cost.cpuSeconds)) / (60 * minutes)),
      readBytes: moved.readBytes - traffic.readBytes,
      writtenBytes: moved.writtenBytes - traffic.writtenBytes,
    },
    { minutes },
  );
} finally {
  await server.killAll();
  rmSync(dataDirectory, { recursive: true, force: true });
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
