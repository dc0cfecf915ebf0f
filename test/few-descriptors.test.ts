/** Never down: with every connection taken, the engine that dies finds the open files that its restart needs. */
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { ask } from "./support/client.ts";
import { temporaryDirectory } from "./support/data-directory.ts";
import { childrenOf, startServer } from "./support/server.ts";

const request = { prompt: "the rain", max_tokens: 2, temperature: 0, ignore_eos: true };

test.runIf(process.platform === "linux")(
  "a server with few open files and all its connections taken restarts its engine, and answers on one that it has",
  async () => {
    const dataDirectory = temporaryDirectory();
    const flags = ["--memory", "64MiB", "--disk", "64MiB", "--threads", "1", "--sequences", "1"];
    const server = await startServer({ dataDirectory, flags, openFiles: 160 });
    onTestFinished(() => server.killAll());
    await ask(server.url, "/v1/completions", request); // keeps its connection, and the next requests use it

    const sockets: Socket[] = [];
    onTestFinished(() => sockets.forEach((socket) => socket.destroy()));
    const { hostname, port } = new URL(server.url);
    for (let index = 0; index < 200; index += 1) {
      const socket = index % 4 === 0 ? connect(join(dataDirectory, "cache.sock")) : connect(Number(port), hostname);
      // Those beyond the limit are closed at once, which only a socket that is read finds out.
      sockets.push(socket.on("error", () => {}).resume());
    }
    await sleep(300);
    const open = () => sockets.filter(({ readyState }) => readyState === "open").length;
    await expect.poll(open, { timeout: 10_000 }).toBeLessThanOrEqual(160 / 2 + 160 / 8);
    expect(open()).toBeGreaterThan(40);

    const before = childrenOf(server.pid);
    for (const pid of [before.engine, ...before.tokenizers]) process.kill(pid, "SIGKILL");
    const end = Date.now() + 30_000;
    for (let answered = false; !answered;) {
      expect(Date.now(), server.output()).toBeLessThan(end);
      await sleep(100);
      answered = await ask(server.url, "/v1/completions", request).then(
        () => true,
        () => false,
      );
    }
    expect(childrenOf(server.pid).engine).not.toBe(before.engine);
    expect(server.output()).not.toContain("TypeError");
  },
  90_000,
);
