import { createHmac } from "node:crypto";
import { describe, expect, test } from "vitest";
import { ask, fakeApp, post } from "./app/fake-server.ts";
import type { App } from "./shell.ts";

const chatPath = "/v1/chat/completions";

describe("keys", () => {
  const keyed = () => fakeApp({ apiKeys: ["key-a", "key-b"] });

  test("what needs one, and what does not", async () => {
    const { app } = keyed();
    for (const path of ["/health", "/"]) expect((await app.request(path)).status).toBe(200);
    for (const path of ["/metrics", "/cache/stats", "/v1/models", "/v1/nothing", "/models", "/models/default"]) {
      const response = await app.request(path);
      expect(response.status).toBe(401);
      expect(response.headers.get("www-authenticate")).toBe("Bearer");
      expect(await response.json()).toMatchObject({ error: { type: "authentication_error", code: "missing_api_key" } });
    }
    for (const path of [chatPath, "/v1/completions", "/tokenize", "/detokenize", "/chat/completions", "/completions"]) {
      expect((await post(app, path, ask("x"))).status).toBe(401);
    }
  });

  test("either header carries it; a wrong, longer, shorter or empty one does not do", async () => {
    const { app } = keyed();
    const status = async (headers: Record<string, string>) => (await app.request("/v1/models", { headers })).status;
    expect(await status({ authorization: "Bearer key-a" })).toBe(200);
    expect(await status({ authorization: "bearer  key-b " })).toBe(200);
    expect(await status({ "x-api-key": "key-b" })).toBe(200);
    for (const wrong of ["key-c", "key-", "key-aa", "", "key-a key-b", "é"]) {
      expect(await status({ authorization: `Bearer ${wrong}` })).toBe(401);
      expect(await status({ "x-api-key": wrong })).toBe(401);
    }
    expect(await status({ authorization: "Basic key-a" })).toBe(401);
  });

  test("a stranger's body is not read", async () => {
    const { app } = keyed();
    let pulled = 0;
    const body = new ReadableStream({ pull: () => void (pulled += 1) }, { highWaterMark: 0 });
    const init = { method: "POST", body, headers: { "content-type": "application/json" }, duplex: "half" as const };
    expect((await app.request(chatPath, init)).status).toBe(401);
    expect(pulled).toBe(0);
  });

  test("each key has a salt of its own, which a cache_salt is mixed into and never replaces", async () => {
    const { app, engine } = keyed();
    const saltOf = async (key: string, more: object) => {
      await post(app, chatPath, ask("x", more), { authorization: `Bearer ${key}` });
      return engine.requests.at(-1)?.cache.salt;
    };
    const own = createHmac("sha256", "test secret").update("key-a").digest();
    expect(await saltOf("key-a", {})).toBe(own.toString("hex"));
    expect(await saltOf("key-a", { cache_salt: "" })).toBe(own.toString("hex"));
    expect(await saltOf("key-a", { cache_salt: "s" })).toBe(createHmac("sha256", own).update("s").digest("hex"));
    const salts = [];
    for (const key of ["key-a", "key-b"]) {
      for (const more of [{}, { cache_salt: "s" }, { cache_salt: own.toString("hex") }])
        salts.push(await saltOf(key, more));
    }
    expect(new Set(salts).size).toBe(6);
  });

  test("a key's share of memory is one, however many salts it sends, and salts of any characters are told apart", async () => {
    const { app, engine } = keyed();
    const salts = ["", "s", "\ud800", "\ud801", "\ufffd", "\0", "x".repeat(1024)];
    const use = { "key-a": new Set<unknown>(), "key-b": new Set<unknown>() };
    const seen = new Set<unknown>();
    for (const [key, tenants] of Object.entries(use))
      for (const salt of salts) {
        const answer = await post(app, chatPath, ask("x", { cache_salt: salt }), { authorization: `Bearer ${key}` });
        expect(answer.status).toBe(200);
        tenants.add(engine.requests.at(-1)?.cache.tenant);
        seen.add(engine.requests.at(-1)?.cache.salt);
      }
    expect([use["key-a"].size, use["key-b"].size]).toEqual([1, 1]);
    expect([...use["key-a"]]).not.toEqual([...use["key-b"]]);
    expect(seen.size).toBe(2 * salts.length);
    const long = await post(app, chatPath, ask("x", { cache_salt: "x".repeat(1025) }), {
      authorization: "Bearer key-a",
    });
    expect(long.status).toBe(400);
    expect(await long.json()).toMatchObject({ error: { param: "cache_salt" } });
  });

  test("without keys the salt is the cache_salt", async () => {
    const { app, engine } = fakeApp();
    await post(app, chatPath, ask("x", { cache_salt: "s" }));
    await post(app, chatPath, ask("x"));
    expect(engine.requests.map((request) => request.cache.salt)).toEqual(["s", ""]);
  });

  test("one tenant's text is not found by another", async () => {
    const { app } = keyed();
    const cached = async (key: string) => {
      const response = await post(app, chatPath, ask("a b c d e"), { "x-api-key": key });
      const body = (await response.json()) as { usage: { prompt_tokens_details: { cached_tokens: number } } };
      return body.usage.prompt_tokens_details.cached_tokens;
    };
    expect(await cached("key-a")).toBe(0);
    expect(await cached("key-b")).toBe(0);
    expect(await cached("key-a")).toBe(5);
  });
});

describe("one key and another's", () => {
  const resized: number[] = [];
  const resizeMemory = (bytes: number) =>
    Promise.resolve({ state: "done" as const, memory: { at: resized.push(bytes) } });
  const keyed = (more: Parameters<typeof fakeApp>[0] = {}) =>
    fakeApp({ apiKeys: ["key-a", "key-b"], resizeMemory, ...more });
  const withAdmin = () => keyed({ adminKeys: ["admin-1", "admin-2"] });
  const by = (key: string) => ({ headers: { authorization: `Bearer ${key}` } });
  const stats = async (app: App, key: string): Promise<unknown> => (await app.request("/cache/stats", by(key))).json();

  test("a tenant's key sees what its own requests came to, and nothing that changes with another's", async () => {
    for (const { app } of [keyed(), withAdmin()]) {
      const before = await stats(app, "key-b");
      expect(before).toEqual({ tenant: { requests: 0, promptTokens: 0, computedTokens: 0, reusedTokens: {} } });
      const headers = { "x-api-key": "key-a" };
      await post(app, chatPath, ask("a b c d"), headers);
      await post(app, chatPath, ask("a b c d"), headers);
      await post(app, chatPath, ask("a b c d e", { stream: true }), headers).then((response) => response.text());
      await post(app, "/v1/completions", { prompt: "one two" }, headers);
      expect(await stats(app, "key-b")).toEqual(before);
      expect(await stats(app, "key-a")).toEqual({
        tenant: { requests: 4, promptTokens: 18, computedTokens: 9, reusedTokens: { memory: 9 } },
      });
    }
  });

  test("figures of all, and the size of the cache, are for an admin key alone; without one, for nobody", async () => {
    for (const [{ app }, message] of [
      [keyed(), "This server was started without an admin key."],
      [withAdmin(), "Send an admin key."],
    ] as const) {
      for (const response of [
        await app.request("/metrics", by("key-a")),
        await post(app, "/cache/resize", { memory: "1GiB" }, { "x-api-key": "key-a" }),
      ]) {
        expect(response.status).toBe(403);
        expect(await response.json()).toMatchObject({
          error: {
            type: "permission_error",
            code: "admin_key_needed",
            message: expect.stringContaining(message) as string,
          },
        });
      }
    }
    expect(resized).toEqual([]);
    const { app } = withAdmin();
    for (const key of ["admin-1", "admin-2"]) {
      expect(await (await app.request("/metrics", by(key))).text()).toContain("reprise_engine_ready 1");
      expect(await stats(app, key)).toMatchObject({ skippedTokens: { disk: 7 } });
    }
    expect((await post(app, "/cache/resize", { memory: "1GiB" }, { "x-api-key": "admin-1" })).status).toBe(200);
    expect(resized).toEqual([2 ** 30]);
    for (const path of ["/metrics", "/cache/stats", "/cache/nothing"])
      expect((await app.request(path)).status).toBe(401);
  });

  test("an admin key is no tenant: it gets no answers and pins nothing", async () => {
    const { app, engine } = keyed({ adminKeys: ["admin-1"], pin: () => Promise.reject(new Error("not asked")) });
    for (const [path, body] of [
      [chatPath, ask("x")],
      ["/tokenize", { content: "x" }],
      ["/cache/pin", { prompt: "x", seconds: 1 }],
    ] as const) {
      const response = await post(app, path, body, { "x-api-key": "admin-1" });
      expect(response.status).toBe(403);
      expect(await response.json()).toMatchObject({ error: { code: "api_key_needed" } });
    }
    expect(engine.requests).toHaveLength(0);
  });

  test("a pin is made under the salt of the key that asks", async () => {
    const salts: string[] = [];
    const { app } = keyed({ pin: ({ salt }) => Promise.resolve(salts.push(salt)) });
    for (const key of ["key-a", "key-b"])
      await post(app, "/cache/pin", { prompt: "x", seconds: 60 }, { "x-api-key": key });
    expect(salts).toEqual(
      ["key-a", "key-b"].map((key) => createHmac("sha256", "test secret").update(key).digest("hex")),
    );
  });

  test("without keys all is open; with an admin key alone, all but figures and orders", async () => {
    const open = fakeApp({ resizeMemory });
    const guarded = fakeApp({ resizeMemory, adminKeys: ["admin-1"] });
    for (const path of ["/metrics", "/cache/stats"]) {
      expect((await open.app.request(path)).status).toBe(200);
      expect((await guarded.app.request(path)).status).toBe(401);
      expect((await guarded.app.request(path, by("admin-1"))).status).toBe(200);
    }
    for (const { app } of [open, guarded]) expect((await post(app, chatPath, ask("x"))).status).toBe(200);
    expect((await post(guarded.app, "/cache/pin", { prompt: "x", seconds: 1 })).status).toBe(401);
  });

  test("/metrics can be opened to all, and nothing else is", async () => {
    const { app } = keyed({ openMetrics: true });
    expect((await app.request("/metrics")).status).toBe(200);
    expect((await app.request("/cache/stats")).status).toBe(401);
    expect((await app.request("/v1/models")).status).toBe(401);
  });
});
