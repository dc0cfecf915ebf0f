import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer as createHttp, type RequestListener } from "node:http";
import { createServer as createHttps } from "node:https";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { describe, expect, onTestFinished, test } from "vitest";
import { temporaryDirectory } from "../../../test/support/data-directory.ts";
import { makeCertificate, programs, startCluster, startSentinels, startStore } from "../../../test/support/valkey.ts";
import { noSignal } from "../tier-suite.ts";
import { parseValkeyAddress } from "./address.ts";
import { whatIsWrong } from "./first-look.ts";
import { ValkeyStore } from "./valkey-store.ts";

function look(text: string): Promise<string | undefined> {
  const address = parseValkeyAddress(text);
  return whatIsWrong(address, address.hosts[0]!, { isUsed: false });
}

async function portOf(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port; // of TCP
}

const greeting: RequestListener = (_, response) => response.end("hello");

test("what is no Valkey", async () => {
  const { key, certificate } = makeCertificate(temporaryDirectory());
  const keep = (socket: Socket) => socket.on("error", () => {}).unref();
  const http = await portOf(createHttp(greeting));
  const https = await portOf(createHttps({ key: readFileSync(key), cert: readFileSync(certificate) }, greeting));
  const silent = await portOf(createServer(keep));
  const ssh = await portOf(createServer((socket) => keep(socket).write("SSH-2.0-OpenSSH_9.2\r\n")));
  const said = await Promise.all(
    [
      `valkey://127.0.0.1:${http}`,
      `valkey+cluster://127.0.0.1:${http}`,
      `valkeys://127.0.0.1:${https}?ca=${certificate}`,
      `valkey://127.0.0.1:${https}`,
      `valkey://127.0.0.1:${ssh}`,
      `valkeys://127.0.0.1:${ssh}`,
      `valkeys://127.0.0.1:${silent}`,
      `valkey+sentinel://127.0.0.1:${silent}/mine`,
      "valkey+cluster://127.0.0.1:9",
    ].map(look),
  );
  expect(said).toEqual([
    "an HTTP server answers there, no Valkey: check host and port",
    "an HTTP server answers there, no Valkey: check host and port",
    "an HTTP server answers there, no Valkey: check host and port",
    "it speaks TLS there: take valkeys:// in place of valkey://",
    "what answers there does not speak the Redis protocol: check host and port",
    "what answers there does not speak the Redis protocol: check host and port",
    "it takes connections and says nothing: check host and port",
    "it takes connections and says nothing: check host and port",
    expect.stringContaining("ECONNREFUSED"),
  ]);
}, 20_000);

test("of one that says one line without end no more than its beginning is heard", async () => {
  let sent = 0;
  const server = createServer((socket) => {
    const more = () => {
      while (!socket.destroyed && socket.write("x".repeat(1024))) sent += 1024;
    };
    socket.on("error", () => {}).on("drain", more);
    more();
  });
  const began = performance.now();
  expect(await look(`valkey://127.0.0.1:${await portOf(server)}`)).toMatch(/^what answers there does not speak/);
  expect(performance.now() - began).toBeLessThan(1500);
  expect(sent).toBeLessThan(64 * 1024 * 1024);
});

describe.skipIf(programs.length === 0).each(programs)(
  "what is a $name server, but another than the address says",
  ({ path }) => {
    test("its database, its password, what kind it is", async () => {
      await using open = await startStore({}, path);
      await using closed = await startStore({ requirepass: "right" }, path);
      const at = `127.0.0.1:${open.port}`;
      for (const [address, fault] of [
        [`valkey://${at}`, undefined],
        [`valkey://${at}/15`, undefined],
        [`valkey://${at}/99`, /^it has no database 99: .*\(ERR DB index is out of range\)$/],
        [`valkey://:needless@${at}`, /^it has no password, and the address does: leave it out/],
        [`valkeys://${at}`, /^it does not speak TLS there: take valkey:\/\//],
        [`valkey+cluster://${at}`, new RegExp(`^it is no cluster: take valkey://${at} `)],
        [`valkey+sentinel://${at}/mine`, new RegExp(`^it is no sentinel: take valkey://${at}, or`)],
        [`valkey://127.0.0.1:${closed.port}`, /^it asks for a password: /],
        [`valkey://:right@127.0.0.1:${closed.port}`, undefined],
        [`valkey://:wrong@127.0.0.1:${closed.port}`, /^it does not know this user with this password/],
        [`valkey://nobody:right@127.0.0.1:${closed.port}`, /^it does not know this user with this password/],
      ] as const)
        if (fault === undefined) expect(await look(address), address).toBeUndefined();
        else expect(await look(address), address).toMatch(fault);
    }, 20_000);
  },
);

describe.skipIf(programs.length === 0)("one server and several", () => {
  test("one that speaks TLS, with a certificate that nobody here knows", async () => {
    const { key, certificate } = makeCertificate(temporaryDirectory());
    const tls = { "tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": certificate };
    await using server = await startStore({ "tls-port": "yes", ...tls, "tls-auth-clients": "no" });
    const at = `127.0.0.1:${server.port}`;
    expect(await look(`valkey://${at}`)).toBe("it speaks TLS there: take valkeys:// in place of valkey://");
    expect(await look(`valkeys://${at}`)).toMatch(/^nobody known here has signed its certificate: .*ca=FILE/);
    expect(await look(`valkeys://${at}?ca=${certificate}`)).toBeUndefined();
    expect(await look(`valkeys://localhost:${server.port}?ca=${certificate}`)).toContain("localhost");
  });

  test("sentinels: an unknown primary, and taken for a server", async () => {
    await using group = await startSentinels();
    const at = `127.0.0.1:${group.sentinels[0]!.port}`;
    expect(await look(`valkey+sentinel://${at}/mymaster`)).toBeUndefined();
    expect(await look(`valkey+sentinel://${at}/other`)).toBe('its sentinels know no primary with the name "other"');
    expect(await look(`valkey://${at}`)).toMatch(/^it is a sentinel: take valkey\+sentinel:\/\//);
    // What the primary lacks is seen once the sentinels have named it.
    await using store = new ValkeyStore(parseValkeyAddress(`valkey+sentinel://${at}/mymaster/99`));
    await expect.poll(() => faultOf(store), { timeout: 5000 }).toMatch(/it has no database 99/);
  }, 60_000);

  test("a node of a cluster taken for a server", async () => {
    await using cluster = await startCluster();
    const at = `127.0.0.1:${cluster.nodes[0]!.port}`;
    expect(await look(`valkey+cluster://${at}`)).toBeUndefined();
    expect(await look(`valkey://${at}`)).toMatch(/^it is one node of a cluster: take valkey\+cluster:\/\//);
    expect(await look(`valkey://${at}/3`)).toMatch(/^it is a cluster, which has no databases/);
  }, 60_000);

  test("a server that is slow to answer a look goes on being used", async () => {
    const silent = await portOf(createServer((socket) => socket.on("error", () => {}).unref()));
    const address = parseValkeyAddress(`valkey://127.0.0.1:${silent}`);
    expect(await whatIsWrong(address, address.hosts[0]!, { isUsed: true })).toBeUndefined();
    await using server = await startStore();
    await using store = new ValkeyStore(parseValkeyAddress(`valkey://127.0.0.1:${server.port}`));
    await expect.poll(() => faultOf(store), { timeout: 5000 }).toBe("");
    // All that arrives meanwhile is read before anybody is called silent.
    const looks = Array.from({ length: 3 }, () => look(`valkey://127.0.0.1:${server.port}`));
    await new Promise(setImmediate);
    for (const until = performance.now() + 1800; performance.now() < until;);
    expect(await Promise.all(looks)).toEqual([undefined, undefined, undefined]);
  }, 20_000);

  test("while something is wrong nothing is asked; once it is right the store is used", async () => {
    await using server = await startStore();
    await using store = new ValkeyStore(parseValkeyAddress(`valkey://:early@127.0.0.1:${server.port}`));
    await expect.poll(() => faultOf(store), { timeout: 5000 }).toMatch(/^Valkey at .*: it has no password/);
    const write = store.write([{ name: "reprise:a", bytes: Buffer.from("a") }], "t", noSignal);
    await expect(write).rejects.toThrow("it has no password");
    await server.command("CONFIG", "SET", "requirepass", "early");
    await expect.poll(() => faultOf(store), { timeout: 10_000 }).toBe("");
    expect(await store.write([{ name: "reprise:a", bytes: Buffer.from("a") }], "t", noSignal)).toBe("written");
  }, 20_000);
});

function faultOf(store: ValkeyStore): Promise<string> {
  return store.getAll(["reprise:a"], 10, noSignal).then(() => "", (error: Error) => error.message); // prettier-ignore
}
