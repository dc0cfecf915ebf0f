/** Test support: the app over a FakeEngine, with and without a socket. */
import { silentLog } from "../../log.ts";
import { createApp, type AppOptions } from "./app.ts";
import { FakeEngine, type FakeEngineOptions } from "./fake-engine.ts";
import { listen, type Listening } from "../listen.ts";
import type { App } from "../shell.ts";

export interface FakeApp {
  readonly engine: FakeEngine;
  readonly app: App;
}

export function fakeApp(options: Partial<AppOptions> & { fake?: FakeEngineOptions } = {}): FakeApp {
  const engine = new FakeEngine(options.fake);
  const app = createApp({
    engine,
    cacheStats: () => ({ skippedTokens: { disk: 7 } }),
    cacheFigures: [],
    pin: () => Promise.resolve(0),
    prefetch: () => Promise.resolve(0),
    apiKeys: [],
    serverSecret: "test secret",
    log: silentLog,
    version: "0.0.0-test",
    ...options,
  });
  return { engine, app };
}

/** The same on a free port of loopback. `await using` closes it. */
export async function fakeServer(
  options: Parameters<typeof fakeApp>[0] & { socket?: Partial<Parameters<typeof listen>[0]> } = {},
): Promise<FakeApp & Listening> {
  const { engine, app } = fakeApp(options);
  const listening = await listen({ app, log: silentLog, port: 0, ...options.socket });
  return { engine, app, ...listening, [Symbol.asyncDispose]: () => listening.close({ graceMs: 0 }) };
}

/** A POST of JSON to the app itself. */
export function post(app: App, path: string, body: unknown, headers: Record<string, string> = {}): Promise<Response> {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const init = { method: "POST", body: text, headers: { "content-type": "application/json", ...headers } };
  return Promise.resolve(app.request(path, init));
}

/** A chat of one message. */
export function ask(content: string, more: object = {}): object {
  return { messages: [{ role: "user", content }], ...more };
}

/** All values of a stream (Array.fromAsync needs Node 22). */
export async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const values: T[] = [];
  for await (const value of source) values.push(value);
  return values;
}
