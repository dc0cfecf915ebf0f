/**
 * Reads a request body as JSON without letting it hurt the server: its size, its nesting and its number of objects are
 * checked before it is parsed, because a parser spends far more memory on `[[[[…` than the text has bytes.
 */
import { RequestRefused } from "./refusal.ts";

/** Deeper than any chat, tool definition or template argument; shallow enough for every recursive reader behind. */
const maximumDepth = 64;
/** Objects and arrays in one body. 4,096 messages with a few parts each, and large tool schemas, stay far below. */
const maximumContainers = 200_000;

export interface BodyLimits {
  /** The largest body; a larger one is answered 413. */
  readonly bodyBytes: number;
  /** Of all bodies that are being received at a time; beyond it, 429. */
  readonly allBodiesBytes: number;
}

export class BodyReader {
  readonly #limits: BodyLimits;
  /** Bytes that arrived and are not parsed yet, over all requests. */
  #heldBytes = 0;

  constructor(limits: BodyLimits) {
    this.#limits = limits;
  }

  /**
   * The parsed body of `request`.
   *
   * @throws RequestRefused 415 when the content is not declared as JSON (which also keeps other sites' forms from posting
   *   here), 413 or 429 when it passes a limit, 400 when it is not JSON.
   */
  async json(request: Request): Promise<unknown> {
    const type = request.headers.get("content-type")?.split(";", 1)[0]?.trim().toLowerCase();
    if (type === undefined || !/^application\/(?:[\w.-]+\+)?json$/.test(type)) {
      throw new RequestRefused(415, "not_json", "Send the body as JSON, with Content-Type: application/json.");
    }
    if (Number(request.headers.get("content-length")) > this.#limits.bodyBytes) throw this.#tooLarge();
    const parts: Uint8Array[] = [];
    let length = 0;
    const reader = request.body?.getReader();
    try {
      for (let part = await reader?.read(); part !== undefined && !part.done; part = await reader?.read()) {
        length += part.value.length;
        this.#heldBytes += part.value.length;
        if (length > this.#limits.bodyBytes) throw this.#tooLarge();
        if (this.#heldBytes > this.#limits.allBodiesBytes) throw busy;
        parts.push(part.value);
      }
      return parse(Buffer.concat(parts, length));
    } finally {
      this.#heldBytes -= length;
    }
  }

  #tooLarge(): RequestRefused {
    const message = `The body is larger than ${this.#limits.bodyBytes} bytes; send a shorter one.`;
    return new RequestRefused(413, "body_too_large", message);
  }
}

const busy = new RequestRefused(429, "too_many_bodies", "Too many large requests arrive at a time; try again.", {
  headers: { "retry-after": "2" },
});

/** At most `length` characters of `text`, for messages that quote what a client sent. */
export function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
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
