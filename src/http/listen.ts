/**
 * The socket under the app: where it listens, how long it waits for slow senders, and how it closes.
 *
 * Closing takes no new connection, lets running answers end for a grace period, then cuts them; a cut connection cancels
 * its request, as any client that leaves does.
 */
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { codeOf, describe, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import type { App } from "./shell.ts";
import { answerTo, RequestRefused, toResponse } from "./refusal.ts";

export interface ListenOptions {
  readonly app: App;
  readonly log: Log;
  /** Default: loopback, so that nobody else reaches it. */
  readonly host?: string;
  /** 0 = any free one. */
  readonly port: number;
  /** Further connections are closed at once. */
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
    },
    // The listener keeps its promise to itself: every failure in it is answered by errorHandler.
    (incoming, outgoing) => void listener(incoming, outgoing),
  );
  const listener = getRequestListener((request, env) => app.fetch(request, env), {
    overrideGlobalObjects: false,
    errorHandler: (error) => {
      const refused = new RequestRefused(400, "invalid_request", `This request cannot be read: ${describe(error)}.`);
      return toResponse(answerTo(refused, { requestId: "", log }));
    },
  });
  server.maxConnections = options.maximumConnections ?? 4096;
  const connections = new Connections(server);
  answerBrokenRequests(server, connections);
  await bind(server, host, options.port);

  const { port } = server.address() as AddressInfo; // a TCP server that listens has one
  const close = ({ graceMs = 5000 } = {}) => closeServer(server, connections, graceMs);
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
          ? new RepriseError("ADDRESS_IN_USE", `${host}:${port} is taken by another program; choose another port.`, {
              cause,
            })
          : new RepriseError("BAD_CONFIG", `Cannot listen on ${host}:${port}: ${describe(cause)}.`, {
              cause,
              field: "host",
            }),
      );
    });
    server.listen({ host, port, backlog: 1024 }, resolve);
  });
}

/** Which connections there are, and which of them have a request that is not answered yet. */
class Connections {
  readonly #open = new Set<Socket>();
  readonly #answering = new Map<Socket, number>();

  constructor(server: Server) {
    server.on("connection", (socket) => {
      this.#open.add(socket);
      socket.once("close", () => {
        this.#open.delete(socket);
        this.#answering.delete(socket);
      });
    });
    server.on("request", ({ socket }, response: ServerResponse) => {
      this.#answering.set(socket, (this.#answering.get(socket) ?? 0) + 1);
      response.once("close", () => {
        const left = (this.#answering.get(socket) ?? 1) - 1;
        if (left > 0) this.#answering.set(socket, left);
        else this.#answering.delete(socket);
      });
    });
  }

  isAnswering(socket: Socket): boolean {
    return this.#answering.has(socket);
  }

  /** Closes those that nothing is being answered on, also ones that never asked (Node counts these as busy). */
  closeIdle(): void {
    for (const socket of this.#open) if (!this.#answering.has(socket)) socket.destroySoon();
  }
}

/** What Node cannot parse never becomes a request; it gets an answer in the usual shape, unless one is being given. */
function answerBrokenRequests(server: Server, connections: Connections): void {
  server.on("clientError", (error, socket) => {
    if (!socket.writable || connections.isAnswering(socket as Socket) || codeOf(error) === "ECONNRESET") {
      socket.destroy();
      return;
    }
    const [status, reason] = brokenStatus(codeOf(error));
    const body = JSON.stringify({
      error: { message: reason, type: "invalid_request_error", param: null, code: "invalid_request" },
    });
    const head = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close`;
    socket.end(`HTTP/1.1 ${status}\r\n${head}\r\n\r\n${body}`);
  });
}

function brokenStatus(code: string | undefined): [status: string, reason: string] {
  if (code === "HPE_HEADER_OVERFLOW") return ["431 Request Header Fields Too Large", "The headers are too large."];
  if (code === "ERR_HTTP_REQUEST_TIMEOUT") return ["408 Request Timeout", "The request took too long to arrive."];
  return ["400 Bad Request", "This is not a valid HTTP request."];
}

async function closeServer(server: Server, connections: Connections, graceMs: number): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  connections.closeIdle();
  // A connection whose answer ends from now on would otherwise be kept for a next request.
  const idle = setInterval(() => connections.closeIdle(), 50);
  const cut = setTimeout(() => server.closeAllConnections(), graceMs);
  await closed;
  clearInterval(idle);
  clearTimeout(cut);
}
