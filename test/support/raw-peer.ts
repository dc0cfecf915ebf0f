/** Peers that speak the wire's frames by hand, as broken or hostile ones do. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { bareRoot, rootKey } from "../../src/identity/keys.ts";
import { spaceId } from "../../src/identity/space.ts";
import { encodeFrame, FrameReader, maxFrameBytes } from "../../src/wire/frames.ts";
import { decodeValue } from "../../src/wire/msgpack.ts";
import { protocolVersion } from "../../src/wire/protocol.ts";
import { slotBytes, testSpace } from "./cache.ts";

export interface Message {
  readonly type: string;
  readonly id?: number;
  readonly [field: string]: unknown;
}

/** Names the root without salt and adapter of {@link testSpace}, as messages about texts do. */
export const rootFields = { root: Buffer.from(rootKey(spaceId(testSpace()), bareRoot), "hex"), tenant: null };

export function helloMessage(change: object = {}): object {
  return {
    type: "hello",
    id: 1,
    version: protocolVersion,
    features: [],
    space: { ...testSpace(), groups: null },
    rank: 0,
    slotBytes: [slotBytes],
    token: "",
    model: "",
    ...change,
  };
}

/** A guest without the client's manners. */
export class RawGuest {
  readonly socket: Socket;
  readonly received: Message[] = [];
  #wake = () => {};
  isOver = false;

  constructor(path: string, options: { reads: boolean } = { reads: true }) {
    this.socket = connect(path);
    this.socket.on("error", () => {});
    this.socket.on("close", () => {
      this.isOver = true;
      this.#wake();
    });
    if (options.reads)
      onMessages(this.socket, (message) => {
        this.received.push(message);
        this.#wake();
      });
    else this.socket.pause();
  }

  send(message: object): void {
    this.socket.write(encodeFrame(message));
  }

  /** Waits until `wanted` holds or the connection is over. */
  async until(wanted: () => boolean): Promise<void> {
    while (!wanted() && !this.isOver) await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  async over(): Promise<void> {
    await this.until(() => false);
  }
}

/** A cache that answers as `answer` says; it does nothing where that returns undefined. */
export async function rawCache(
  path: string,
  answer: (message: Message, socket: Socket) => object | undefined,
): Promise<Server & { readonly messages: Message[] }> {
  const messages: Message[] = [];
  const server = createServer((socket) => {
    socket.on("error", () => {});
    onMessages(socket, (message) => {
      messages.push(message);
      const reply = answer(message, socket);
      if (reply !== undefined) socket.write(encodeFrame(reply));
    });
  });
  server.listen(path);
  await once(server, "listening");
  return Object.assign(server, { messages });
}

function onMessages(socket: Socket, handle: (message: Message) => void): void {
  const reader = new FrameReader();
  reader.limitBytes = maxFrameBytes;
  socket.on("data", (piece: Buffer) => {
    reader.push(piece);
    for (let body = reader.next(); body !== undefined; body = reader.next())
      handle(decodeValue(body) as unknown as Message);
  });
}
