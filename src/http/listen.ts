/**
 * The socket under the app: where it listens, how long it waits for slow senders, and how it closes.
 *
 *     serving ──close──► draining: running answers end, ──graceMs──► cut: each says so ──lastWordsMs──► closed
 *                        all else is refused                        (503, or an error event in a stream)
 */
import { createServer, STATUS_CODES, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener, type HttpBindings } from "@hono/node-server";
import { connectionsFor } from "../descriptors.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import { Connections } from "./connections.ts";
import type { App } from "./shell.ts";
import { openAiError } from "./openai-error.ts";
import { RequestRefused, toResponse } from "./refusal.ts";

/** How long what was cut may take to reach its client. */
const lastWordsMs = 1000;

export interface ListenOptions {
  readonly app: App;
  readonly log: Log;
  /** Default: loopback, so that nobody else reaches it. */
  readonly host?: string;
  /** 0 = any free one. */
  readonly port: number;
  /** Further connections are closed at once. Default: 4,096, or half of the files that the process may open. */
  readonly maximumConnections?: number;
  /** A connection that has not sent its headers by then is answered 408. */
  readonly headersTimeoutMs?: number;
  /** The same for the whole request, body included. */
  readonly requestTimeoutMs?: number;
}

export interface Listening extends AsyncDisposable {
  readonly host: string;
  readonly port: number;
  /** `http://host:port`, without a slash at the end. */
  readonly url: string;
  /** Ends when every connection is closed. @param options.graceMs for answers that are being given; default 5 s. */
  close(options?: { graceMs?: number }): Promise<void>;
}

/**
 * Serves `app`.
 *
 * @throws RepriseError ADDRESS_IN_USE, or BAD_CONFIG when the host or port cannot be listened on.
 */
export async function listen(options: ListenOptions): Promise<Listening> {
  const { app, log, host = "127.0.0.1" } = options;
  const headersTimeoutMs = options.headersTimeoutMs ?? 15_000;
  const requestTimeoutMs = options.requestTimeoutMs ?? 120_000;
  const server = createServer(
    {
      headersTimeout: Math.min(headersTimeoutMs, requestTimeoutMs),
      requestTimeout: requestTimeoutMs,
      connectionsCheckingInterval: Math.min(2000, headersTimeoutMs),
      keepAliveTimeout: 65_000, // longer than the 60 s of common proxies, which must be the ones to close
      // Probes leave the Host out. Browsers never do, so that no page gets in by it (see checkHost).
      requireHostHeader: false,
    },
    // The listener keeps its promise to itself: every failure in it is answered by errorHandler.
    (incoming, outgoing) => void listener(incoming, outgoing),
  );
  const connections = new Connections(server);
  const answer = (request: Request, { incoming, outgoing }: HttpBindings) =>
    app.fetch(request, { incoming, outgoing, closing: connections.begin(incoming, outgoing) });
  const listener = getRequestListener((request, env) => answer(request, env as HttpBindings), {
    overrideGlobalObjects: false,
    hostname: "localhost", // for requests without a Host
    errorHandler: (error) => {
      const refused = new RequestRefused(400, "invalid_request", `This request cannot be read: ${describe(error)}.`);
      return toResponse(refused, openAiError);
    },
  });
  server.maxConnections = options.maximumConnections ?? connectionsFor("http", 4096);
  answerBrokenRequests(server, connections);
  await bind(server, host, options.port);

  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const close = ({ graceMs = 5000 } = {}) => closeServer(server, connections, { graceMs, log });
  return {
    host,
    port,
    url: `http://${host.includes(":") ? `[${host}]` : host}:${port}`,
    close,
    [Symbol.asyncDispose]: () => close(),
  };
}

function bind(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", (cause) => {
      const inUse = codeOf(cause) === "EADDRINUSE";
      reject(
        inUse
          ? new RepriseError("ADDRESS_IN_USE", `${host}:${port} is taken by another program: choose another --port`)
          : new RepriseError("BAD_CONFIG", `Cannot listen on ${host}:${port}: ${describe(cause)}.`, {
              cause,
              field: "host",
            }),
      );
    });
    server.listen({ host, port, backlog: 1024 }, resolve);
  });
}

/** What Node cannot parse never becomes a request; it gets an answer in the usual shape, unless one is being given. */
function answerBrokenRequests(server: Server, connections: Connections): void {
  server.on("clientError", (error, socket) => {
    if (!socket.writable || connections.isAnswering(socket as Socket) || codeOf(error) === "ECONNRESET") {
      socket.destroy();
      return;
    }
    const [status, message] = brokenStatus(codeOf(error));
    const body = JSON.stringify(openAiError({ status, code: "invalid_request", message }).body);
    const head = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close`;
    socket.end(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${head}\r\n\r\n${body}`);
  });
}

function brokenStatus(code: string | undefined): [status: number, message: string] {
  if (code === "HPE_HEADER_OVERFLOW") return [431, "The headers are too large."];
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return [408, "The request took too long to arrive."];
  return [400, "This is not a valid HTTP request."];
}

async function closeServer(
  server: Server,
  connections: Connections,
  { graceMs, log }: { graceMs: number; log: Log },
): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  connections.startClosing();
  const { answers } = connections;
  if (answers > 0) log.info(`answers that may end within ${graceMs / 1000} s: ${answers}`);
  // A stream's connection whose answer ends from now on would otherwise be kept for a next request.
  const idle = setInterval(() => connections.closeIdle(), 50);
  const cut = setTimeout(() => connections.cut(), graceMs);
  const end = setTimeout(() => server.closeAllConnections(), graceMs + lastWordsMs);
  await closed;
  clearInterval(idle);
  clearTimeout(cut);
  clearTimeout(end);
}
