/**
 * What a streamed OpenAI answer says, and when: bytes with their times of arrival go in, pieces of text with times come
 * out. It owns no socket and no clock, so that a recorded stream measures the same in a test as on the wire.
 *
 *     bytes, at ──► UTF-8 ──► lines (LF or CRLF) ──► events (a blank line ends one) ──► JSON ──► answer
 *
 * Reads may cut anywhere: in a character, a line ending, a frame. An event has the time of the read that brought the end
 * of its data line: earlier nobody could have read it, and the blank line after it says nothing more.
 */

/** A line longer than this is no event of a language model; the stream is given up. */
const longestLine = 16 * 1024 ** 2;

export interface StreamUsage {
  readonly promptTokens?: number;
  readonly completionTokens?: number;
  readonly cachedTokens?: number;
}

export class StreamParser {
  /** When each piece that is a token arrived, on the caller's clock. */
  readonly tokenAt: number[] = [];
  /** When `[DONE]` arrived. */
  doneAt: number | undefined;
  /** A finish_reason was seen: the answer is whole, even where the server sends no `[DONE]`. */
  finished = false;
  usage: StreamUsage = {};
  reused: Readonly<Record<string, number>> | undefined;
  /** What the stream said of its own failure, or what cannot be understood in it; the first of these. */
  error: string | undefined;

  readonly #decoder = new TextDecoder();
  readonly #pieces: string[] = [];
  #rest = "";
  #data: string[] = [];
  #dataAt = 0;

  /** The answer so far. */
  get text(): string {
    return this.#pieces.join("");
  }

  /** Takes what one read brought. */
  push(bytes: Uint8Array, at: number): void {
    const fresh = this.#decoder.decode(bytes, { stream: true });
    if (!fresh.includes("\n")) {
      this.#rest += fresh;
      if (this.#rest.length > longestLine) {
        this.error ??= `a line of more than ${longestLine} characters`;
        this.#rest = "";
      }
      return;
    }
    const lines = (this.#rest + fresh).split("\n");
    this.#rest = lines.pop() ?? "";
    for (const line of lines) this.#line(line.endsWith("\r") ? line.slice(0, -1) : line, at);
  }

  #line(line: string, at: number): void {
    if (line === "") {
      if (this.#data.length > 0) this.#event(this.#data.join("\n"), this.#dataAt);
      this.#data = [];
    } else if (line.startsWith("data:")) {
      this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      this.#dataAt = at;
    }
    // Comments and the fields event, id and retry carry nothing of the answer.
  }

  #event(data: string, at: number): void {
    if (data === "[DONE]") {
      this.doneAt ??= at;
      return;
    }
    const event = parseObject(data);
    if (event === undefined) {
      this.error ??= `not JSON: ${shortened(data)}`;
      return;
    }
    if (event["error"] !== undefined && event["error"] !== null) this.error ??= errorWords(event["error"]);
    this.#choice(event, at);
    this.#figures(event);
  }

  #choice(event: Fields, at: number): void {
    const choice = Array.isArray(event["choices"]) ? fields(event["choices"][0]) : undefined;
    if (choice === undefined) return;
    const delta = fields(choice["delta"]);
    const text = filled(delta?.["content"]) ?? filled(choice["text"]);
    // Thoughts are tokens, and no part of the answer.
    const thought = filled(delta?.["reasoning_content"]) ?? filled(delta?.["reasoning"]);
    if (text !== undefined || thought !== undefined) this.tokenAt.push(at);
    if (text !== undefined) this.#pieces.push(text);
    if (filled(choice["finish_reason"]) !== undefined) this.finished = true;
  }

  #figures(event: Fields): void {
    const usage = fields(event["usage"]);
    if (usage !== undefined) this.usage = usageOf(usage);
    const reused = fields(fields(event["reprise"])?.["reused"]);
    if (reused !== undefined) {
      this.reused = Object.fromEntries(
        Object.entries(reused).filter((entry): entry is [string, number] => Number.isFinite(entry[1])),
      );
    }
  }
}

/** The words of an error answer: `{"error": {"message"}}` where it is one, else the beginning of the body. */
export function errorWords(body: unknown): string {
  const given = typeof body === "string" ? (parseObject(body) ?? body) : body;
  const error = fields(given)?.["error"] ?? given;
  const message = fields(error)?.["message"];
  return shortened(typeof message === "string" ? message : typeof error === "string" ? error : JSON.stringify(error));
}

type Fields = Readonly<Record<string, unknown>>;

function usageOf(usage: Fields): StreamUsage {
  const promptTokens = finite(usage["prompt_tokens"]);
  const completionTokens = finite(usage["completion_tokens"]);
  const cachedTokens = finite(fields(usage["prompt_tokens_details"])?.["cached_tokens"]);
  return {
    ...(promptTokens === undefined ? {} : { promptTokens }),
    ...(completionTokens === undefined ? {} : { completionTokens }),
    ...(cachedTokens === undefined ? {} : { cachedTokens }),
  };
}

function parseObject(text: string): Fields | undefined {
  try {
    return fields(JSON.parse(text));
  } catch (error) {
    if (error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function fields(value: unknown): Fields | undefined {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;
}

function filled(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}

function finite(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) ? value : undefined;
}

function shortened(text: string): string {
  const line = text.replaceAll(/\s+/g, " ").trim();
  return line.length > 300 ? `${line.slice(0, 300)}…` : line;
}
