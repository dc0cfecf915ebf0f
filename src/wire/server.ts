/**
 * The cache's door: a unix socket, 0600, at which guests open sessions.
 *
 * A connection is a session. When it breaks without a `bye`, the guest may still be copying out of or into its slots, so
 * its leases stand for `graceMs` more before they fall; nobody else is given those slots meanwhile.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { existsSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { Cache } from "../cache/cache.ts";
import { codeOf, describe, RepriseError } from "../errors.ts";
import { silentLog, type Log } from "../log.ts";
import { defaultChannelLimits, type ChannelLimits } from "./channel.ts";
import { GuestConnection } from "./guest-connection.ts";

export interface WireServerOptions {
  readonly socketPath: string;
  readonly cache: Pick<Cache, "openSession" | "stats" | "clear" | "compact">;
  /** Guests must know it; none is asked for when it is undefined. The socket's mode is the first guard. */
  readonly token?: string;
  readonly log?: Log;
  /** How long the leases of a broken connection stand: 5 s unless given. */
  readonly graceMs?: number;
  /** How long a guest may take to say hello: 5 s unless given. */
  readonly helloMs?: number;
  readonly limits?: Partial<ChannelLimits>;
  /** Connections at a time: 256 unless given. Further ones are closed at once. */
  readonly maxConnections?: number;
}

export class WireServer implements AsyncDisposable {
  readonly socketPath: string;
  readonly #server: Server;
  readonly #connections = new Set<GuestConnection>();
  readonly #options: WireServerOptions;
  #onConnections = () => {};

  private constructor(server: Server, options: WireServerOptions) {
    this.socketPath = options.socketPath;
    this.#server = server;
    this.#options = options;
    server.maxConnections = options.maxConnections ?? 256;
    server.on("connection", (socket) => this.#accept(socket));
  }

  /**
   * Opens the socket; replaces that of a dead server.
   *
   * @throws RepriseError ADDRESS_IN_USE when a living server listens there, BAD_CONFIG when the path is too long.
   */
  static async listen(options: WireServerOptions): Promise<WireServer> {
    mustFitSocketAddress(options.socketPath);
    const server = createServer();
    const wire = new WireServer(server, options);
    try {
      await bind(server, options.socketPath);
    } catch (error) {
      if (codeOf(error) !== "EADDRINUSE") throw error;
      if (await answers(options.socketPath))
        throw new RepriseError(
          "ADDRESS_IN_USE",
          `another server listens on ${options.socketPath}: stop it, or choose another --socket`,
          {
            cause: error,
          },
        );
      rmSync(options.socketPath, { force: true });
      await bind(server, options.socketPath);
    }
    return wire;
  }

  /** Connections that stand, or whose leases still do. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Some guest has registered the pool with a device: its pages must stay. */
  get hasPinnedPool(): boolean {
    return [...this.#connections].some((connection) => connection.hasPinnedPool);
  }

  /** Resolves when no guest has been connected for so long, counted from now at the earliest. Never once `signal` fires. */
  unusedFor(milliseconds: number, signal: AbortSignal): Promise<"unused"> {
    return new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      const look = () => {
        clearTimeout(timer);
        if (this.#connections.size === 0 && !signal.aborted) timer = setTimeout(() => resolve("unused"), milliseconds);
      };
      this.#onConnections = look;
      signal.addEventListener("abort", look);
      look();
    });
  }

  /** Disconnects every guest at once and ends the sessions. */
  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#connections].map((connection) => connection.close()));
    await closed;
    if (existsSync(this.socketPath)) rmSync(this.socketPath, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #accept(socket: Socket): void {
    const { cache, token, log = silentLog, graceMs = 5000, helloMs = 5000, limits } = this.#options;
    const connection = new GuestConnection(socket, {
      cache,
      mayEnter: (given) => token === undefined || isSame(given, token),
      graceMs,
      helloMs,
      limits: { ...defaultChannelLimits, ...limits },
      onOver: (reason) => {
        this.#connections.delete(connection);
        this.#onConnections();
        if (reason !== undefined) log.debug(`a guest was disconnected: ${describe(reason)}`);
      },
    });
    this.#connections.add(connection);
    this.#onConnections();
  }
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    // listen() makes the socket's file before it returns, so no other thread of ours sees the changed mask.
    const mask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off("error", reject);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
  });
}

/** Does a living server listen there? */
function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", (error) => resolve(codeOf(error) === "EAGAIN"));
  });
}

/** Compares without telling by its duration how much agrees. */
function isSame(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text, "utf8").digest();
  return timingSafeEqual(digest(given), digest(wanted));
}

function mustFitSocketAddress(path: string): void {
  const limit = process.platform === "darwin" ? 103 : 107;
  if (Buffer.byteLength(path) > limit)
    throw new RepriseError(
      "BAD_CONFIG",
      `the socket path ${path} is longer than the ${limit} bytes a socket address holds`,
    );
}
