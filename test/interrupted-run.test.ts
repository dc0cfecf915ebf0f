/** However a run of the tests ends, the servers, engines and tokenizers that it started end with it. */
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { repositoryRoot } from "./support/repository.ts";

const vitest = join(repositoryRoot, "node_modules", "vitest", "vitest.mjs");

test.runIf(process.platform === "linux").each(["SIGINT", "SIGTERM", "SIGKILL"] as const)(
  "a run that %s ends in its middle leaves no process behind",
  async (signal) => {
    const mark = `INTERRUPTED=${randomUUID()}`;
    const run = spawn(process.execPath, [vitest, "run", "test/large-texts.test.ts"], {
      cwd: repositoryRoot,
      stdio: "ignore",
      env: { ...process.env, REPRISE_TEST_RUN: "", INTERRUPTED: mark.split("=")[1] },
    });
    onTestFinished(() => endAll(mark));
    await expect
      .poll(() => marked(mark), { timeout: 60_000 })
      .toContainEqual(expect.stringContaining("engine-process"));
    expect(marked(mark).join("\n")).toMatch(/dist\/cli\/main\.js serve/);
    run.kill(signal);
    await expect.poll(() => marked(mark), { timeout: 15_000 }).toEqual([]);
  },
  90_000,
);

/** Command lines of the processes that inherited the mark. */
function marked(mark: string): string[] {
  return pids(mark).map((pid) => commandLine(pid));
}

function pids(mark: string): string[] {
  return readdirSync("/proc").filter((name) => /^\d+$/.test(name) && of(name, "environ").includes(mark));
}

function commandLine(pid: string): string {
  return of(pid, "cmdline").join(" ");
}

/** Nothing of a process that is gone. */
function of(pid: string, file: "environ" | "cmdline"): string[] {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1").split("\0");
  } catch {
    return [];
  }
}

function endAll(mark: string): void {
  for (const pid of pids(mark)) {
    try {
      process.kill(Number(pid), "SIGKILL");
    } catch {
      // gone meanwhile
    }
  }
}
