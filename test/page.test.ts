/** The page on the real server, in a real browser: a person sees cold against warm, and that a restart forgets nothing. */
import { expect, onTestFinished, test } from "vitest";
import { browserIsHere, launchBrowser } from "./support/browser.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { startServer } from "./support/server.ts";
import { settled } from "./support/settled.ts";

test.runIf(browserIsHere)(
  "the example is answered cold, warm, and from memory after kill -9 and a restart",
  async () => {
    const dataDirectory = temporaryDirectory();
    const first = await startServer({ dataDirectory, flags: ["--memory", "64MiB"] });
    onTestFinished(() => first.killAll());
    const browser = await launchBrowser();
    onTestFinished(() => browser.close());
    const page = await browser.newPage();
    await page.goto(first.url);
    await page.getByRole("button", { name: "Use example notes" }).click();
    await page.locator("#suggestions button").first().click();
    const bar = async (run: number) => {
      const image = page.locator(".run").nth(run).getByRole("img");
      await image.waitFor();
      return image.getAttribute("aria-label");
    };

    expect(await bar(0)).toMatch(/^Prompt of [\d,]+ tokens: [\d,]+ computed$/);
    const answer = await page.locator(".answer").textContent();
    expect(answer).toMatch(/\.$/);
    await page.getByRole("button", { name: "Same again" }).click();
    expect(await bar(1)).toMatch(/: 1 computed, [\d,]+ resident$/);

    await settled(first.url);
    await first.killAll();
    const port = new URL(first.url).port;
    const second = await startServer({ dataDirectory, flags: ["--memory", "64MiB", "--port", port] });
    onTestFinished(() => second.killAll());
    await page.getByRole("button", { name: "Same again" }).click();
    expect(await bar(2)).toMatch(/: 1 computed, [\d,]+ memory$/);
    expect(await page.locator(".answer").textContent()).toBe(answer);
  },
  60_000,
);
