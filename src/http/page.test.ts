/** The page at `/`, as files and in a real browser. The browser is Debian's; where CI is set it must be there. */
import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Browser, Page as BrowserPage } from "playwright-core";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { textContent } from "../chat/content.ts";
import { RepriseError } from "../errors.ts";
import type { FakeAnswer } from "./app/fake-engine.ts";
import { browserIsHere, launchBrowser } from "../../test/support/browser.ts";
import { fakeApp, fakeServer } from "./app/fake-server.ts";

describe("the page's files", () => {
  test.each([
    ["/", "text/html; charset=utf-8"],
    ["/index.html", "text/html; charset=utf-8"],
    ["/app.js", "text/javascript; charset=utf-8"],
    ["/style.css", "text/css; charset=utf-8"],
    ["/icon.svg", "image/svg+xml"],
  ])("%s comes as %s, under a policy that lets it load nothing else", async (path, type) => {
    const { app } = fakeApp();
    const response = await app.request(path);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe(type);
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    const policy = response.headers.get("content-security-policy");
    expect(policy).toMatch(/^default-src 'none'; script-src 'self'; /);
    expect(policy).not.toMatch(/unsafe|\*|http|data:/);
    const headers = { "if-none-match": response.headers.get("etag")! }; // every file has one
    expect((await app.request(path, { headers })).status).toBe(304);
  });

  test("nothing outside of its folder, no folders, and no types that it does not know", async () => {
    const root = await mkdtemp(join(tmpdir(), "reprise-page-"));
    const pageDirectory = join(root, "page");
    await mkdir(join(pageDirectory, "sub.html"), { recursive: true });
    await writeFile(join(root, "secret.html"), "secret");
    await writeFile(join(pageDirectory, "index.html"), "the page");
    await writeFile(join(pageDirectory, ".env"), "secret");
    await using server = await fakeServer({ pageDirectory });
    expect(await (await fetch(server.url)).text()).toBe("the page");
    for (const path of [
      "/../secret.html",
      "/..%2fsecret.html",
      "/%2e%2e/secret.html",
      "/..%5csecret.html",
      "/page/../../secret.html",
      "//secret.html",
      "/sub.html",
      "/.env",
      "/index.html%00.css",
      "/__proto__",
      "/constructor",
    ]) {
      const response = await server.app.request(new Request(`http://localhost${path}`));
      expect(response.status).toBe(404);
      expect(await response.text()).not.toMatch(/^secret/);
    }
    await rm(root, { recursive: true });
  });
});

if (!browserIsHere) process.stderr.write("The page is not tested in a browser: there is no chromium.\n");

describe.skipIf(!browserIsHere)("in a browser", () => {
  let browser: Browser;
  beforeAll(async () => {
    browser = await launchBrowser();
  });
  afterAll(() => browser?.close());

  /** Opens the page; the function that it returns fails on any error in the console and any request to elsewhere. */
  async function open(url: string): Promise<{ page: BrowserPage; expectQuiet: () => void }> {
    const page = await browser.newPage({ viewport: { width: 1200, height: 800 } });
    const noise: string[] = [];
    page.on("console", (message) => void (message.type() === "error" && noise.push(message.text())));
    page.on("pageerror", (error) => noise.push(String(error)));
    page.on("request", (request) => void (request.url().startsWith(url) || noise.push(request.url())));
    await page.goto(url);
    await page.getByRole("status").filter({ hasText: "ready" }).waitFor();
    return { page, expectQuiet: () => expect(noise).toEqual([]) };
  }

  test("a long text is computed once, and found in memory when the same is sent again", async () => {
    await using server = await fakeServer({
      fake: { script: () => ({ pieces: ["Jonas", " did", "."], prefillMs: 60 }) },
    });
    const { page, expectQuiet } = await open(server.url);
    await expect.poll(() => page.locator("#model").textContent()).toBe("fake-1b");
    await page.getByRole("button", { name: "Use example notes" }).click();
    await page.getByLabel("Question").fill("Who opened the door?");
    await page.getByRole("button", { name: "Send" }).click();

    const runs = page.locator(".run");
    await runs.nth(0).getByRole("img").waitFor();
    expect(await page.locator(".answer").textContent()).toBe("Jonas did.");
    const [request] = server.engine.requests;
    const { promptTokens } = server.engine.stats();
    expect(promptTokens).toBeGreaterThan(800);
    expect(request?.prompt).toMatchObject({
      messages: [{ content: [{ kind: "text", text: expect.stringMatching(/^Note 1.*door\?$/s) }] }],
    });
    const words = promptTokens.toLocaleString("en");
    const bar = (run: number) => runs.nth(run).getByRole("img").getAttribute("aria-label");
    expect(await bar(0)).toBe(`Prompt of ${words} tokens: ${words} computed`);

    await page.getByRole("button", { name: "Same again" }).click();
    await runs.nth(1).getByRole("img").waitFor();
    expect(await bar(1)).toBe(
      `Prompt of ${words} tokens: 1 computed, ${(promptTokens - 1).toLocaleString("en")} memory`,
    );
    expect(await runs.nth(1).locator(".faster").textContent()).toMatch(/^\d+× faster$/);
    const widths = await runs
      .nth(1)
      .locator(".bar i")
      .evaluateAll((parts) => parts.map((part) => (part as unknown as { offsetWidth: number }).offsetWidth));
    expect(widths[1]!).toBeGreaterThan(widths[0]! * 20); // two parts, as the label says

    await page.getByLabel("Question").fill("And then?");
    await page.keyboard.press("Enter");
    await runs.nth(2).getByRole("img").waitFor();
    expect(server.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [
        { role: "user" },
        { role: "assistant", content: textContent("Jonas did.") },
        { role: "user", content: textContent("And then?") },
      ],
    });
    expectQuiet();
    await page.close();
  });

  test("what the model says is text, whatever it says", async () => {
    const evil = '<img src=x onerror="document.title=1"><script>document.title=2</script>';
    await using server = await fakeServer({ fake: { script: () => ({ pieces: [evil] }) } });
    const { page, expectQuiet } = await open(server.url);
    await page.getByLabel("Question").fill("<b>x</b>");
    await page.keyboard.press("Enter");
    await page.locator(".run [role=img]").waitFor();
    expect(await page.locator(".answer").textContent()).toBe(evil);
    expect(await page.locator(".turn img, .turn b").count()).toBe(0);
    expect(await page.title()).toBe("Reprise");
    expectQuiet();
    await page.close();
  });

  test("Escape stops an answer, and a new chat starts from nothing", async () => {
    const pieces = {
      *[Symbol.iterator]() {
        for (;;) yield " more";
      },
    };
    await using server = await fakeServer({ fake: { script: () => ({ pieces, pieceMs: 5 }) } });
    const { page, expectQuiet } = await open(server.url);
    await page.getByLabel("Question").fill("x");
    await page.keyboard.press("Enter");
    await page.locator(".answer").filter({ hasText: "more more" }).waitFor();
    await page.keyboard.press("Escape");
    await expect.poll(() => server.engine.stats().runningRequests).toBe(0);
    await page.locator(".run").filter({ hasText: "stopped" }).waitFor();
    await page.getByRole("button", { name: "New chat" }).click();
    expect(await page.locator(".turn").count()).toBe(0);
    expectQuiet();
    await page.close();
  });

  test("a reload shows the chat again, and goes on with it; a new chat is forgotten", async () => {
    await using server = await fakeServer({ fake: { script: () => ({ pieces: ["Jonas", " did", "."] }) } });
    const { page, expectQuiet } = await open(server.url);
    await page.locator("#long-text").fill("Jonas opened the door.");
    await page.getByLabel("Question").fill("Who opened the door?");
    await page.keyboard.press("Enter");
    await page.locator(".run [role=img]").waitFor();
    const bar = () => page.locator(".run [role=img]").first().getAttribute("aria-label");
    const before = await bar();
    await page.reload();
    expect(await page.locator(".answer").textContent()).toBe("Jonas did.");
    expect(await bar()).toBe(before);
    expect(await page.locator("#long-text").inputValue()).toBe("Jonas opened the door.");
    await page.getByRole("button", { name: "Same again" }).click();
    await page.locator(".run [role=img]").nth(1).waitFor();
    await page.getByLabel("Question").fill("And then?");
    await page.keyboard.press("Enter");
    await page.locator(".run [role=img]").nth(2).waitFor();
    expect(server.engine.requests.at(-1)?.prompt).toMatchObject({
      messages: [{ role: "user" }, { role: "assistant", content: textContent("Jonas did.") }, { role: "user" }],
    });
    await page.getByRole("button", { name: "New chat" }).click();
    await page.locator("#long-text").fill("");
    await page.reload();
    expect(await page.locator(".turn").count()).toBe(0);
    await page.evaluate("sessionStorage.setItem('reprise-chat', '{\"turns\": 7}')");
    await page.reload();
    await page.getByRole("status").filter({ hasText: "ready" }).waitFor();
    expectQuiet();
    await page.close();
  });

  test("a kept chat that is no chat is forgotten, and the page begins anew", async () => {
    await using server = await fakeServer();
    const { page, expectQuiet } = await open(server.url);
    const run = { text: "q", messages: [], answer: "a", runs: [{ report: {} }] };
    for (const turns of [[null], [{}], [run], [{ ...run, runs: [{ report: null }] }]]) {
      const chat = JSON.stringify({ longText: "x", history: [], turns });
      await page.evaluate(`sessionStorage.setItem("reprise-chat", ${JSON.stringify(chat)})`);
      await page.reload();
      await page.getByRole("status").filter({ hasText: "ready" }).waitFor();
    }
    expectQuiet();
    await page.close();
  });

  test("by keyboard alone: the example, one of its questions, the same again; the other questions outlast a reload", async () => {
    await using server = await fakeServer({ fake: { script: () => ({ pieces: ["RK704."] }) } });
    const { page, expectQuiet } = await open(server.url);
    const press = async (name: string) => {
      const isFocused = () => page.evaluate("document.activeElement.textContent.trim()");
      for (let tabs = 0; (await isFocused()) !== name; tabs += 1) {
        expect(tabs).toBeLessThan(20);
        await page.keyboard.press("Tab");
      }
      await page.keyboard.press("Enter");
    };
    await press("Use example notes");
    const questions = page.locator("#suggestions button");
    const offered = await questions.allTextContents();
    await press(offered[1]!); // there are four
    await page.locator(".run [role=img]").waitFor();
    await press("Same again");
    await page.locator(".run [role=img]").nth(1).waitFor();
    await expect.poll(() => page.evaluate("document.activeElement.textContent")).toBe("Same again");
    await page.reload();
    expect(await questions.allTextContents()).toEqual(offered.filter((_, i) => i !== 1));
    expectQuiet();
    await page.close();
  });

  test("a model whose KV is not reused is said to be one, with the reason", async () => {
    await using server = await fakeServer({ fake: { reuse: { refused: "its attention slides over 512 tokens" } } });
    const { page } = await open(server.url);
    await page
      .getByRole("note")
      .filter({ hasText: "not reused, since its attention slides over 512 tokens" })
      .waitFor();
    await page.close();
  });

  test("a server with keys is asked with one, which is kept for the tab alone", async () => {
    await using server = await fakeServer({ apiKeys: ["right"] });
    const { page } = await open(server.url);
    await page.getByLabel("This server asks for an API key.").fill("wrong");
    await page.keyboard.press("Enter");
    await page.getByLabel("The server did not accept this API key").fill("right");
    await page.keyboard.press("Enter");
    await expect.poll(() => page.locator("#model").textContent()).toBe("fake-1b");
    await page.getByLabel("Question").fill("hello");
    await page.keyboard.press("Enter");
    await page.locator(".answer").filter({ hasText: "I read" }).waitFor();
    expect(await page.evaluate("JSON.stringify([{ ...sessionStorage }, { ...localStorage }])")).toBe(
      '[{"reprise-api-key":"right"},{}]',
    );
    await page.close();
  });

  test("failures are told in words, and can be tried again", async () => {
    const refusal = new RepriseError("QUEUE_FULL", "64 requests wait.");
    const answers: FakeAnswer[] = [{ pieces: [], refusal }, { pieces: ["fine"] }];
    await using server = await fakeServer({ fake: { script: () => answers.shift() ?? { pieces: [] } } });
    const { page } = await open(server.url);
    await page.getByLabel("Question").fill("hello");
    await page.keyboard.press("Enter");
    expect(await page.getByRole("alert").textContent()).toMatch(/^The server is busy/);
    await page.getByRole("button", { name: "Try again" }).click();
    await page.locator(".answer").filter({ hasText: "fine" }).waitFor();
    expect(await page.getByRole("alert").count()).toBe(0);
    await server.close({ graceMs: 0 });
    await page.getByLabel("Question").fill("still there?");
    await page.keyboard.press("Enter");
    expect(await page.getByRole("alert").textContent()).toMatch(/^The server does not answer/);
    await page.close();
  });
});
