import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { sampleResult } from "../../../test/support/bench-result.ts";
import { browserIsHere, launchBrowser } from "../../../test/support/browser.ts";
import type { BenchResult } from "../result.ts";
import { renderReport } from "./report.ts";

const libraryIsHere = canResolve("uplot/package.json");

test.runIf(libraryIsHere)("the report is the same text for the same result, and holds all facts", async () => {
  const result = sampleResult();
  const html = await renderReport(result);
  expect(await renderReport(result)).toBe(html);
  const shown = [result.command, result.commit, result.machine, result.warmUp, result.startedAt, "shuffle true"];
  for (const fact of shown) expect(html).toContain(fact);
});

test.runIf(libraryIsHere)("nothing in the report points outside", async () => {
  const html = await renderReport(sampleResult());
  expect(html).toContain("default-src 'none'; script-src 'sha256-");
  expect(html).not.toMatch(/unsafe-|<link|<img|\ssrc=|@import|url\(/);
});

test.runIf(libraryIsHere)("the chart library that the report carries has its licence with it", async () => {
  const html = await renderReport(sampleResult());
  expect(html).toContain("Copyright (c) 2022 Leon Sorokin");
  expect(html).toContain("Permission is hereby granted, free of charge");
});

test.runIf(libraryIsHere)("text of servers and users cannot break out of the report", async () => {
  const evil = `</script></title><img src=x onerror="alert(1)"><!--`;
  const html = await renderReport(everyTextIs(evil, sampleResult({ users: 2, turns: 2, rounds: 1 })));
  expect(html).not.toContain("<img");
  expect(html.match(/<\/script>/g)).toHaveLength(3);
  expect(html.match(/<script/g)).toHaveLength(3);
});

test.runIf(libraryIsHere)("a run without one good answer still has a report", async () => {
  const { samples, ...rest } = sampleResult({ users: 1, turns: 2, rounds: 1 });
  const failed = samples.map(({ target, round, id, group, dueMs, sentMs }) => {
    const lost = { outcome: "unreachable", tokenMs: [], endMs: sentMs, checked: false } as const;
    return { target, round, id, group, dueMs, sentMs, ...lost };
  });
  expect(await renderReport({ ...rest, samples: failed })).toContain("unreachable");
  expect(await renderReport({ ...rest, samples: [] })).toContain("None: every request");
});

test.runIf(libraryIsHere && browserIsHere)(
  "a browser draws every plot, in light and dark, and asks nobody for anything",
  async () => {
    const directory = mkdtempSync(join(tmpdir(), "reprise-report-"));
    onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
    const path = join(directory, "report.html");
    writeFileSync(path, await renderReport(sampleResult()));
    const browser = await launchBrowser();
    onTestFinished(() => browser.close());
    const page = await browser.newPage();
    const [complaints, requests]: [string[], string[]] = [[], []];
    page.on("console", (message) => complaints.push(message.text()));
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("request", (request) => requests.push(request.url()));

    await page.goto(pathToFileURL(path).href);
    await page.emulateMedia({ colorScheme: "dark" });

    expect(await page.locator("figure h3").allTextContents()).toEqual([
      "Time to first token by group",
      "Time to first token by round of the run",
      "Time to first token, all requests",
      "End to end, all requests",
      "Throughput against latency",
    ]);
    expect(await page.locator("figure canvas").count()).toBe(5);
    // Source text: the browser's names are no names of Node's types.
    const drawn: number[] = await page.evaluate(`[...document.querySelectorAll("figure canvas")].map((canvas) => {
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return data.filter((value) => value !== 0).length;
    })`);
    for (const pixels of drawn) expect(pixels).toBeGreaterThan(1000);
    for (const width of [1200, 420]) {
      await page.setViewportSize({ width, height: 800 });
      await expect.poll(() => page.evaluate("document.documentElement.scrollWidth")).toBe(width);
    }
    expect(complaints).toEqual([]);
    expect(requests).toEqual([pathToFileURL(path).href]);
  },
  60_000,
);

function everyTextIs(text: string, result: BenchResult): BenchResult {
  const targets = result.targets.slice(0, 1).map((target) => ({ ...target, label: text, url: text, model: text }));
  const texts = { target: text, group: text, error: text, outcome: "cut", reused: { [text]: 5 } } as const;
  const samples = result.samples.map((sample) => ({ ...sample, ...texts }));
  const facts = {
    bench: text,
    command: text,
    commit: text,
    version: text,
    machine: text,
    startedAt: text,
    warmUp: text,
  };
  return { ...result, ...facts, options: { [text]: text }, targets, samples };
}

function canResolve(name: string): boolean {
  try {
    return createRequire(import.meta.url).resolve(name) !== "";
  } catch {
    return false;
  }
}
