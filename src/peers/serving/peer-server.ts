/**
 * Where other hosts read what this one's cache has: a TCP port, with TLS and a token unless it is loopback's.
 *
 *     connections ──► a limited number; further ones are closed at once
 *          └──► PeerConnection: one chunk at a time each ──► ReadsByKey: memory and disk of this host
 */
import { createServer as createTcpServer, type AddressInfo, type Server, type Socket } from "node:net";
import { createServer as createTlsServer } from "node:tls";
import { connectionsFor } from "../../descriptors.ts";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import { alignedBuffer } from "../../tiers/disk/aligned.ts";
import { idleMs } from "../protocol.ts";
import type { Compression } from "../../tiers/shared/payloads.ts";
import { PackRoom } from "./pack-room.ts";
import { PeerConnection, type PeerTimes, type ReadCache } from "./peer-connection.ts";
import { ReadRoom } from "./read-room.ts";
import { Refusals } from "./refusals.ts";

export interface PeerServerOptions {
  readonly cache: ReadCache;
  readonly host: string;
  /** 0: any free one. */
  readonly port: number;
  /** Certificate and key, PEM. undefined: no TLS. */
  readonly tls?: { readonly cert: Buffer; readonly key: Buffer } | undefined;
  /** What readers must know; undefined: none is asked for. */
  readonly token?: string | undefined;
  /** Whether those who ask for it are sent payloads packed: "lossless" unless given, where the machine has libzstd. */
  readonly compress?: Compression;
  readonly log?: Log;
  /** Connections at a time: 256 unless given, or an eighth of the files that the process may open. */
  readonly maxConnections?: number;
  readonly times?: Partial<PeerTimes>;
}

export interface PeerServerStats {
  readonly connections: number;
  /** Since the start. */
  readonly servedChunks: number;
  readonly servedBytes: number;
  /** What has travelled of those: less where it was packed. */
  readonly servedStoredBytes: number;
  /** Hosts that were not let in, for a wrong token or another version; each try counts. */
  readonly refused: number;
}

/** Parts that are read from the disk for other hosts at a time. */
const diskReads = 4;

export class PeerServer implements AsyncDisposable {
  readonly #server: Server;
  readonly #options: PeerServerOptions;
  readonly #connections = new Set<PeerConnection>();
  /** TLS handshakes under way included. */
  readonly #sockets = new Set<Socket>();
  readonly #room = new ReadRoom(diskReads, alignedBuffer);
  readonly #packRoom: PackRoom | undefined;
  readonly #log: Log;
  readonly #refusals: Refusals;
  readonly #served = { servedChunks: 0, servedBytes: 0, servedStoredBytes: 0 };

  private constructor(server: Server, options: PeerServerOptions) {
    this.#server = server;
    this.#options = options;
    this.#packRoom = options.compress === "none" ? undefined : PackRoom.open();
    this.#log = options.log ?? silentLog;
    this.#refusals = new Refusals(this.#log);
    server.maxConnections = options.maxConnections ?? connectionsFor("peers", 256);
    server.on("connection", (socket: Socket) => this.#keep(socket));
    server.on(options.tls === undefined ? "connection" : "secureConnection", (socket: Socket) => this.#accept(socket));
    server.on("tlsClientError", (error: Error, socket: Socket) => {
      socket.destroy(); // nobody else does
      this.#log.debug(`a host could not connect: ${describe(error)}`);
    });
  }

  /** @throws RepriseError ADDRESS_IN_USE, or BAD_CONFIG when the address or the certificate cannot be used */
  static async listen(options: PeerServerOptions): Promise<PeerServer> {
    const server = makeServer(options);
    const peers = new PeerServer(server, options);
    await bind(server, options);
    return peers;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port; // a TCP server that listens has one
  }

  /** As it is typed. */
  get address(): string {
    return asTyped(this.#options.host, this.port);
  }

  stats(): PeerServerStats {
    return { connections: this.#connections.size, ...this.#served, refused: this.#refusals.count };
  }

  /** Ends every connection at once. Nobody reads what was given to them any more when it has. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const connection of this.#connections) connection.close();
    for (const socket of this.#sockets) socket.destroy();
    await closed;
    await this.#packRoom?.idle();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => {}); // its end is all that counts
    socket.on("close", () => this.#sockets.delete(socket));
  }

  #accept(socket: Socket): void {
    const { cache, token, times } = this.#options;
    const address = socket.remoteAddress ?? "an address that is gone";
    const connection = new PeerConnection(socket, {
      cache,
      token,
      room: this.#room,
      packRoom: this.#packRoom,
      log: this.#log,
      helloMs: 5000,
      stallMs: 10_000,
      idleMs,
      ...times,
      onServed: ({ bytes, storedBytes }) => {
        this.#served.servedChunks += 1;
        this.#served.servedBytes += bytes;
        this.#served.servedStoredBytes += storedBytes;
      },
      onRefused: (why) => this.#refusals.note(address, why),
      onOver: (reason) => {
        this.#connections.delete(connection);
        if (reason !== undefined) this.#log.debug(`a host was disconnected: ${describe(reason)}`);
      },
    });
    this.#connections.add(connection);
  }
}

function asTyped(host: string, port: number): string {
  return `${host.includes(":") ? `[${host}]` : host}:${port}`;
}

function makeServer({ tls, times }: PeerServerOptions): Server {
  if (tls === undefined) return createTcpServer();
  try {
    return createTlsServer({ ...tls, minVersion: "TLSv1.2", handshakeTimeout: times?.helloMs ?? 5000 });
  } catch (error) {
    throw new RepriseError("BAD_CONFIG", `--listen-cert and --listen-key cannot be used: ${describe(error)}`);
  }
}

function bind(server: Server, { host, port }: PeerServerOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    const refuse = (error: Error) => {
      const where = `--listen ${asTyped(host, port)}`;
      reject(
        codeOf(error) === "EADDRINUSE"
          ? new RepriseError("ADDRESS_IN_USE", `${where} is taken by another program: choose another port`)
          : new RepriseError("BAD_CONFIG", `${where} cannot be listened on`, { cause: error }),
      );
    };
    server.once("error", refuse);
    server.listen({ host, port, backlog: 512 }, () => {
      server.off("error", refuse);
      server.on("error", () => {}); // accepting failed, for want of descriptors: the connection is not there
      resolve();
    });
  });
}
