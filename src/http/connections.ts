/**
 * Which connections there are, and which of them have a request that is not answered yet.
 *
 * A client that closes its sending side (`nc -N`, shutdown(2)) may wait for its answer or be gone: TCP tells these apart
 * only when something is sent. While nothing of an answer was, HTTP's `100 Continue` is, which every client skips; whoever
 * is gone resets the connection, and that cancels the request.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";

/** How often a half-closed connection is looked at: an empty write sends nothing, and fails when a reset came meanwhile. */
const lookMs = 50;
/** `100 Continue` is sent at the second look, so that quick answers come without it, and then every so many looks. */
const firstProbe = 2;
const probeEvery = 100;

/** A request that is not answered yet. */
interface Answering {
  readonly response: ServerResponse;
  readonly cut: AbortController;
}

export class Connections {
  readonly #open = new Set<Socket>();
  readonly #answering = new Map<Socket, Set<Answering>>();
  #isClosing = false;

  constructor(server: Server) {
    // Node would take a FIN for the end of the connection. The property is as old as node:http, and not in its types.
    (server as Server & { httpAllowHalfOpen: boolean }).httpAllowHalfOpen = true;
    server.on("connection", (socket) => {
      this.#open.add(socket);
      socket.once("end", () => this.#watch(socket));
      socket.once("close", () => {
        this.#open.delete(socket);
        this.#answering.delete(socket);
      });
    });
  }

  /** Notes a request until its answer is over. @returns the signal at which it is cut, aborted when we close already */
  begin({ socket }: IncomingMessage, response: ServerResponse): AbortSignal {
    const answering = { response, cut: new AbortController() };
    const all = this.#answering.get(socket) ?? new Set();
    this.#answering.set(socket, all.add(answering));
    response.once("close", () => {
      all.delete(answering);
      if (all.size === 0) this.#answering.delete(socket);
    });
    if (this.#isClosing) {
      response.shouldKeepAlive = false;
      answering.cut.abort();
    }
    return answering.cut.signal;
  }

  isAnswering(socket: Socket): boolean {
    return this.#answering.has(socket);
  }

  /** Answers that are being given. */
  get answers(): number {
    return [...this.#answering.values()].reduce((sum, { size }) => sum + size, 0);
  }

  /** From now on requests are refused, and connections end with the answer that is being given on them. */
  startClosing(): void {
    this.#isClosing = true;
    for (const { response } of this.#all()) response.shouldKeepAlive = false;
    this.closeIdle();
  }

  /** Closes those that nothing is being answered on, also ones that never asked (Node counts these as busy). */
  closeIdle(): void {
    for (const socket of this.#open) if (!this.#answering.has(socket)) socket.destroySoon();
  }

  /** Ends all answers: each gets to say that it was cut. */
  cut(): void {
    for (const { cut } of this.#all()) cut.abort();
  }

  #all(): Answering[] {
    return [...this.#answering.values()].flatMap((all) => [...all]);
  }

  /** Finds out whether a client that closed its sending side is still there, as long as it waits for an answer. */
  #watch(socket: Socket): void {
    let looks = 0;
    const timer = setInterval(() => {
      looks += 1;
      const answers = this.#answering.get(socket);
      if (answers === undefined || socket.destroyed) {
        clearInterval(timer);
        return;
      }
      socket.write("");
      if (looks % probeEvery !== firstProbe) return;
      for (const { response } of answers) {
        if (!response.headersSent && response.req.httpVersion === "1.1") response.writeContinue();
      }
    }, lookMs);
    timer.unref();
  }
}
