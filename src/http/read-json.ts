/**
 * Reads a request body as JSON without letting it hurt the server: its size, its nesting and its number of objects are
 * checked before it is parsed, because a parser spends far more memory on `[[[[…` than the text has bytes.
 */
import { RepriseError } from "../errors.ts";
import { RequestRefused } from "./refusal.ts";
import { shorten } from "./fields/shorten.ts";

/** Deeper than any chat, tool definition or template argument; shallow enough for every recursive reader behind. */
const maximumDepth = 64;
/** Objects and arrays in one body. 4,096 messages with a few parts each, and large tool schemas, stay far below. */
const maximumContainers = 200_000;

export interface BodyLimits {
  /** The largest body; a larger one is answered 413. */
  readonly bodyBytes: number;
  /** Of all bodies that are being received at a time; beyond it, 429 to whoever sends most. */
  readonly allBodiesBytes: number;
  /** A body of which next to nothing came in this time is answered 408. */
  readonly slowBodyMs: number;
}

/** Next to nothing: less than the slowest of phones sends in ten seconds, and enough for most whole requests. */
const slowBodyBytes = 32 * 1024;

/** Of whom and for what a body is. */
export interface BodyOrigin {
  /** Whose body it is: senders share the room. */
  readonly sender: string;
  /** What this route can use at most; the server's own limit holds as well. */
  readonly mostBytes?: number;
}

/** A body that is on its way. */
interface Receiving {
  readonly sender: string;
  /** Bytes that it may have. */
  readonly limit: number;
  /** That came so far. */
  bytes: number;
  /** That had come when its pace was last looked at. */
  bytesBefore: number;
  /** Ends it with this answer. */
  refuse: (refused: RequestRefused) => void;
}

export class BodyReader {
  readonly #limits: BodyLimits;
  /** What arrives and is not parsed yet, over all requests; the longest on its way first. */
  readonly #receiving = new Set<Receiving>();
  #heldBytes = 0;

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  /**
   * The parsed body of `request`.
   *
   * Room for bodies is shared between their senders: one alone may have all of it, but where it runs short, whoever holds
   * most has to give. So no sender is refused while it holds less than its part, whatever others have begun and not ended.
   *
   * @throws RequestRefused 415 when the content is not declared as JSON (which also keeps other sites' forms from posting
   *   here), 413 or 429 when it passes a limit, 408 when it does not come, 400 when it is not JSON.
   */
  async json(request: Request, { sender, mostBytes = Infinity }: BodyOrigin): Promise<unknown> {
    const limit = Math.min(mostBytes, this.#limits.bodyBytes);
    const type = request.headers.get("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
    if (type === undefined || !/^application\/(?:[\w.-]+\+)?json$/.test(type)) {
      throw new RequestRefused(415, "not_json", "Send the body as JSON, with Content-Type: application/json.");
    }
    if (Number(request.headers.get("content-length")) > limit) throw tooLarge(limit);
    const receiving: Receiving = { sender, limit, bytes: 0, bytesBefore: 0, refuse: () => {} };
    const refused = new Promise<never>((_, reject) => (receiving.refuse = reject));
    refused.catch(() => {}); // who waits for it is told; nobody does once all has come
    this.#receiving.add(receiving);
    const pace = setInterval(() => checkPace(receiving), this.#limits.slowBodyMs).unref();
    try {
      return parse(await this.#receive(request, receiving, refused));
    } finally {
      clearInterval(pace);
      this.#forget(receiving);
    }
  }

  async #receive(request: Request, receiving: Receiving, refused: Promise<never>): Promise<Uint8Array> {
    const parts: Uint8Array[] = [];
    if (request.body === null) return Buffer.alloc(0);
    const reader = request.body.getReader();
    for (;;) {
      const part = await Promise.race([reader.read().catch(cutShort), refused]);
      // Refused just now, with this part on its way: it is counted no more.
      if (!this.#receiving.has(receiving)) await refused;
      if (part.done) break;
      receiving.bytes += part.value.length;
      this.#heldBytes += part.value.length;
      if (receiving.bytes > receiving.limit) throw tooLarge(receiving.limit);
      this.#makeRoom(receiving);
      parts.push(part.value);
    }
    return Buffer.concat(parts, receiving.bytes);
  }

  /** @throws RequestRefused 429 when it is `latest` that has to go. */
  #makeRoom(latest: Receiving): void {
    while (this.#heldBytes > this.#limits.allBodiesBytes) {
      const giver = this.#largestSender();
      if (giver === latest.sender) throw busy;
      // Its oldest: that which has been on its way longest is likeliest never to end.
      const oldest = [...this.#receiving].find(({ sender, bytes }) => sender === giver && bytes > 0);
      if (oldest === undefined) throw busy;
      oldest.refuse(busy);
      this.#forget(oldest);
    }
  }

  #largestSender(): string {
    const held = new Map<string, number>();
    for (const { sender, bytes } of this.#receiving) held.set(sender, (held.get(sender) ?? 0) + bytes);
    return [...held].reduce((largest, each) => (each[1] > largest[1] ? each : largest), ["", 0])[0];
  }

  #forget(receiving: Receiving): void {
    if (this.#receiving.delete(receiving)) this.#heldBytes -= receiving.bytes;
  }
}

function tooLarge(limit: number): RequestRefused {
  const message = `The body is larger than the ${limit} bytes that can be used here; send a shorter one.`;
  return new RequestRefused(413, "body_too_large", message);
}

/** A body breaks off when its client goes. @throws RepriseError CANCELLED */
function cutShort(cause: unknown): never {
  throw new RepriseError("CANCELLED", "The client left before its body had come.", { cause });
}

const busy = new RequestRefused(429, "too_many_bodies", "Too many large requests arrive at a time; try again.", {
  headers: { "retry-after": "2" },
});

function checkPace(receiving: Receiving): void {
  if (receiving.bytes - receiving.bytesBefore < slowBodyBytes) {
    const message = "The rest of the body did not come in time; send the request again, without pauses.";
    receiving.refuse(new RequestRefused(408, "body_too_slow", message));
  }
  receiving.bytesBefore = receiving.bytes;
}

function parse(bytes: Uint8Array): unknown {
  checkShape(bytes);
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)) as unknown;
  } catch (error) {
    const reason = error instanceof SyntaxError ? shorten(error.message, 200) : "it is not UTF-8";
    throw new RequestRefused(400, "invalid_json", `The body is not valid JSON: ${reason}.`);
  }
}

/** Counts brackets outside of strings; needs no valid JSON. About 1 ms per MiB. */
function checkShape(bytes: Uint8Array): void {
  let depth = 0;
  let containers = 0;
  let inString = false;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at];
    if (byte === quote) inString = !inString;
    else if (inString) at += byte === backslash ? 1 : 0;
    else if (byte === openBrace || byte === openBracket) {
      depth += 1;
      containers += 1;
      if (depth > maximumDepth || containers > maximumContainers) {
        throw new RequestRefused(
          400,
          "invalid_json",
          `The body is nested deeper than ${maximumDepth} levels or has more than ${maximumContainers} objects and arrays.`,
        );
      }
    } else if (byte === closeBrace || byte === closeBracket) depth -= 1;
  }
}

const quote = 0x22;
const backslash = 0x5c;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;
