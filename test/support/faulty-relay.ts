/**
 * A TCP relay in this process, with the faults of a network: it holds everything back, ends connections, refuses new ones, flips bits.
 *
 *     client ──► port ──► target            what is held back comes later, in order, as after a partition
 */
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

/** Far apart enough that most answers are right, near enough that a text has one. */
const bentEveryBytes = 100_000;

export class FaultyRelay implements AsyncDisposable {
  readonly port: number;
  readonly #server;
  readonly #sockets = new Set<Socket>();
  #isHeld = false;
  #isRefusing = false;
  #isBending = false;
  #bytes = 0;

  private constructor(server: ReturnType<typeof createServer>) {
    this.#server = server;
    this.port = (server.address() as AddressInfo).port; // of a TCP server that listens
  }

  /** @param target asked for each connection: whoever it is may come back elsewhere */
  static async start(target: () => number): Promise<FaultyRelay> {
    const server = createServer((near) => relay.#join(near, target()));
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const relay = new FaultyRelay(server);
    return relay;
  }

  /** Nothing passes, and nobody is told. */
  hold(): void {
    this.#isHeld = true;
    for (const socket of this.#sockets) socket.pause();
  }

  /** Ends what is connected; new connections end as well until {@link pass}. */
  refuse(): void {
    this.#isRefusing = true;
    this.cut();
  }

  cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /** Flips a bit now and then of what comes from the target. */
  bend(): void {
    this.#isBending = true;
  }

  pass(): void {
    [this.#isHeld, this.#isRefusing, this.#isBending] = [false, false, false];
    for (const socket of this.#sockets) socket.resume();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cut();
    await new Promise((closed) => this.#server.close(closed));
  }

  #join(near: Socket, port: number): void {
    if (this.#isRefusing) {
      near.destroy();
      return;
    }
    const far = connect({ host: "127.0.0.1", port });
    const ends = [
      [near, far, false],
      [far, near, true],
    ] as const;
    for (const [from, to, isAnswer] of ends) {
      this.#sockets.add(from);
      from.setNoDelay(true);
      from.on("data", (piece: Buffer) => {
        if (isAnswer && this.#isBending) this.#flip(piece);
        if (to.write(piece)) return;
        from.pause();
        to.once("drain", () => this.#isHeld || from.resume());
      });
      from.on("error", () => to.destroy()).on("end", () => to.end());
      from.on("close", () => {
        this.#sockets.delete(from);
        to.destroy();
      });
      if (this.#isHeld) from.pause();
    }
  }

  #flip(piece: Buffer): void {
    const before = this.#bytes % bentEveryBytes;
    this.#bytes += piece.length;
    const at = bentEveryBytes - before;
    if (at < piece.length) piece[at]! ^= 4; // inside
  }
}
