/**
 * The cache's door: a unix socket, 0600, at which guests open sessions.
 *
 * A connection is a session (handshake.ts). When it breaks without a `bye`, the guest may still be copying out of or into
 * its slots, so its leases stand for `graceMs` more before they fall (lease-expiry.ts).
 *
 *     connection ──hello──► session ──holds a lease too long, breaks──► grace ──► leases fall, slots are free
 *          └─ silent for helloMs, or one too many: refused and closed      └── bye, or nothing held: at once
 */
import { existsSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import type { Cache } from "../../cache/cache.ts";
import { connectionsFor } from "../../descriptors.ts";
import { codeOf, describe, RepriseError } from "../../errors.ts";
import { silentLog, type Log } from "../../log.ts";
import { defaultChannelLimits, type ChannelLimits } from "../channel.ts";
import { GuestConnection } from "./guest-connection.ts";
import type { HandshakeOptions } from "./handshake.ts";
import { watchLeases } from "./lease-expiry.ts";
import { isSame } from "../same-secret.ts";
import { prepareSocketPlace } from "../socket-place.ts";

/** Connections beyond the limit that are answered before they are closed. */
const refusedAtOnce = 16;

export interface WireServerOptions {
  readonly socketPath: string;
  readonly cache: Pick<Cache, "openSession" | "stats" | "clear" | "compact">;
  /** Guests must know it; none is asked for when it is undefined. The socket's mode is the first guard. */
  readonly token?: string;
  readonly log?: Log;
  /** Told of each session that guests open (handshake.ts). */
  readonly onSession?: HandshakeOptions["onSession"];
  /** How long the leases of a broken connection stand: 5 s unless given. */
  readonly graceMs?: number;
  /** How long a guest may take to say hello: 5 s unless given. */
  readonly helloMs?: number;
  readonly limits?: Partial<ChannelLimits>;
  /** How long a guest may hold a lease: 5 min unless given. */
  readonly leaseMs?: number;
  /**
   * Guests at a time: 256 unless given, or an eighth of the files that the process may open. Further ones are told QUEUE_FULL, or are
   * closed at once when they are many.
   */
  readonly maxConnections?: number;
}

export class WireServer implements AsyncDisposable {
  readonly socketPath: string;
  readonly #server: Server;
  readonly #connections = new Set<GuestConnection>();
  readonly #options: WireServerOptions;
  readonly #mostGuests: number;
  #watch: NodeJS.Timeout | undefined;
  #onConnections = () => {};

  private constructor(server: Server, options: WireServerOptions) {
    this.socketPath = options.socketPath;
    this.#server = server;
    this.#options = options;
    this.#mostGuests = options.maxConnections ?? connectionsFor("guests", 256);
    server.maxConnections = this.#mostGuests + refusedAtOnce;
    server.once("listening", () => (this.#watch = watchLeases(this.#connections, options.leaseMs ?? 300_000)));
    server.on("connection", (socket) => this.#accept(socket));
  }

  /**
   * Opens the socket; replaces that of a dead server.
   *
   * @throws RepriseError ADDRESS_IN_USE when a living server listens there, BAD_CONFIG when no socket can be made there: the path
   * is too long, its folder is not private, something else lies there.
   */
  static async listen(options: WireServerOptions): Promise<WireServer> {
    for (const warning of await prepareSocketPlace(options.socketPath)) options.log?.warn(warning);
    const server = createServer();
    const wire = new WireServer(server, options);
    await bind(server, options.socketPath);
    return wire;
  }

  /** Connections that stand, or whose leases still do. */
  get connections(): number {
    return this.#connections.size;
  }

  /** Some guest has registered the pool with a device: its pages must stay. */
  get hasRegisteredPool(): boolean {
    return [...this.#connections].some((connection) => connection.hasRegisteredPool);
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
    clearInterval(this.#watch);
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    await Promise.all([...this.#connections].map((connection) => connection.close()));
    await closed;
    if (existsSync(this.socketPath)) rmSync(this.socketPath, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #accept(socket: Socket): void {
    const { cache, token, log = silentLog, graceMs = 5000, helloMs = 5000, limits, onSession } = this.#options;
    const isOneTooMany = this.#connections.size >= this.#mostGuests;
    const connection = new GuestConnection(socket, {
      refusal: isOneTooMany
        ? new RepriseError("QUEUE_FULL", `the cache has ${this.#mostGuests} guests already: end some, or come later`)
        : undefined,
      cache,
      mayEnter: (given) => token === undefined || isSame(given, token),
      onSession,
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
    const refuse = (error: Error) => {
      const isTaken = codeOf(error) === "EADDRINUSE"; // since it was found free
      reject(
        isTaken
          ? new RepriseError("ADDRESS_IN_USE", `another server listens on ${path}: choose another --socket`)
          : error,
      );
    };
    server.once("error", refuse);
    // listen() makes the socket's file before it returns, so no other thread of ours sees the changed mask.
    const mask = process.umask(0o177);
    try {
      server.listen(path, () => {
        server.off("error", refuse);
        resolve();
      });
    } finally {
      process.umask(mask);
    }
  });
}
