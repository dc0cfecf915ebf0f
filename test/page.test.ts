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
    // The model that ships is introduced, and the page begins with what it is good at.
    await page.getByRole("note").filter({ hasText: "questions about notes" }).waitFor();
    expect(await page.locator("#long-text").inputValue()).toMatch(/^Note 1\./);
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

test.runIf(browserIsHere)(
  "a server with keys is asked with the key that a person gives; one that gets no answers is asked for again",
  async () => {
    const flags = ["--memory", "64MiB", "--api-key", "key-of-a-person", "--admin-key", "key-of-the-admin"];
    const server = await startServer({ dataDirectory: temporaryDirectory(), flags });
    onTestFinished(() => server.killAll());
    const browser = await launchBrowser();
    onTestFinished(() => browser.close());
    const page = await browser.newPage();
    await page.goto(server.url);
    const give = async (key: string) => {
      await page.locator("#key").fill(key);
      await page.getByRole("button", { name: "Use key" }).click();
    };
    const model = page.locator("#model");

    await give("key-of-the-admin");
    await page.getByText("did not accept this API key").waitFor();
    await give("key-of-a-person");
    await model.filter({ hasText: "reprise" }).waitFor();
    expect(await page.locator("#key").isVisible()).toBe(false);
    await page.locator("#question").fill("Hello");
    await page.getByRole("button", { name: "Send" }).click();
    await page.locator(".run").first().getByRole("img").waitFor();
  },
  60_000,
);
