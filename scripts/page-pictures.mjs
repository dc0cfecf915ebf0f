// Takes the pictures of the page that docs show: `node scripts/page-pictures.mjs [FOLDER]` (docs/ unless given). Needs Debian's
// chromium. A real server with the model that ships: asked cold, warm, after kill -9 and a restart; then on a phone, and dark.
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { chromium } from "playwright-core";

const folder = resolve(process.argv[2] ?? "docs");
const dataDir = mkdtempSync(join(tmpdir(), "reprise-pictures-"));
mkdirSync(folder, { recursive: true });

let server = await start(0);
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"],
});
try {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  await page.goto(server.url);
  await page.locator("#suggestions button").first().click();
  await again(page, 1);
  await untilStored(server.url);
  server.kill("SIGKILL");
  server = await start(new URL(server.url).port);
  await again(page, 2);
  await page.mouse.move(0, 0);
  await page.locator('#state[data-state="ok"]').waitFor();
  await page.screenshot({ path: join(folder, "page.png") });
  await page.setViewportSize({ width: 390, height: 844 });
  await page.evaluate(() => globalThis.scrollTo(0, globalThis.document.body.scrollHeight));
  await page.screenshot({ path: join(folder, "page-phone.png") });
  await page.setViewportSize({ width: 1280, height: 800 });
  await page.emulateMedia({ colorScheme: "dark" });
  await page.reload();
  await page.locator(".run").last().waitFor();
  await page.screenshot({ path: join(folder, "page-dark.png") });
} finally {
  await browser.close();
  server.kill("SIGTERM");
  await server.ended;
  rmSync(dataDir, { recursive: true, force: true });
}

/** Presses "Same again" and waits for the answer, after which `runs` + 1 bars are there. */
async function again(page, runs) {
  await page.getByRole("button", { name: "Same again" }).click();
  await page.locator(".run").nth(runs).getByRole("img").waitFor();
  await page.locator("#stop").waitFor({ state: "hidden" });
}

async function untilStored(url) {
  for (;;) {
    const { unsavedChunks } = await (await fetch(`${url}/cache/stats`)).json();
    if (unsavedChunks === 0) return;
    await sleep(20);
  }
}

/** A server in a process group of its own, engine included. */
function start(port) {
  const flags = ["--data-dir", dataDir, "--memory", "256MiB", "--port", String(port)];
  const child = spawn(process.execPath, ["dist/cli/main.js", "serve", ...flags], {
    detached: true,
    stdio: ["ignore", "pipe", "inherit"],
  });
  const ended = new Promise((over) => child.once("exit", over));
  return new Promise((ready, fail) => {
    child.once("exit", (code) => fail(new Error(`the server ended with ${code}`)));
    createInterface(child.stdout).on("line", (line) => {
      const [, url] = /ready at (\S+)/.exec(line) ?? [];
      if (url !== undefined) ready({ url, ended, kill: (signal) => process.kill(-child.pid, signal) });
    });
  });
}
