/**
 * One streamed request, timed. node:http and nothing above it: what stands between the socket and the clock is the
 * client's own overhead, and is measured as the server's.
 *
 * The clock is read first thing when bytes arrive, before they are parsed. Connections are kept alive in the caller's
 * agent, as clients of a busy server do; a new connection's handshake counts in the time to the first token.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { codeOf, describe } from "../errors.ts";
import type { Outcome } from "./result.ts";
import { errorWords, StreamParser, type StreamUsage } from "./stream-parser.ts";

/** How long a server may take to end its response after `[DONE]` before its connection is given up; no time counts it. */
const farewellMs = 250;
/** As much of an error's body as is read for its words. */
const longestErrorBytes = 64 * 1024;

export interface StreamRequest {
  /** The full address. */
  readonly url: URL;
  readonly agent: HttpAgent;
  readonly apiKey: string | undefined;
  /** JSON, with `stream: true`. */
  readonly body: string;
  readonly expected: string | undefined;
  /** Longest silence, also before the first byte. */
  readonly stallMs: number;
  /** Ends the request; its outcome is then "cut". */
  readonly signal: AbortSignal;
}

/** What one request did. Times are performance.now(). */
export interface StreamedAnswer extends StreamUsage {
  readonly outcome: Outcome;
  readonly text: string;
  readonly sentAt: number;
  readonly tokenAt: readonly number[];
  readonly endAt: number;
  readonly reused?: Readonly<Record<string, number>>;
  readonly error?: string;
}

/** An agent with as many connections as there are requests at a time. */
export function streamAgent(url: URL): HttpAgent {
  return url.protocol === "https:"
    ? new HttpsAgent({ keepAlive: true, maxFreeSockets: Infinity })
    : new HttpAgent({ keepAlive: true, maxFreeSockets: Infinity });
}

/** Asks, and listens to the end. Never throws: what goes wrong is the outcome. */
export async function streamRequest(asked: StreamRequest): Promise<StreamedAnswer> {
  for (;;) {
    const answer = await attempt(asked);
    // A server may close an idle connection while the request is on its way: that is nobody's failure, and asked again. All
    // that idle may be closed so; each attempt uses one up, and a new connection is never stale.
    if (answer !== "stale connection") return answer;
  }
}

/** How a connection came to its end. */
type Ending = { kind: "complete" } | { kind: "stalled" } | { kind: "broken"; error: unknown; connected: boolean };

function attempt(asked: StreamRequest): Promise<StreamedAnswer | "stale connection"> {
  return new Promise((resolve) => {
    const parser = new StreamParser();
    let status: number | undefined;
    let refusal = "";
    let connected = false;
    let ending: Ending | undefined;

    const sent = (asked.url.protocol === "https:" ? httpsRequest : httpRequest)(asked.url, {
      method: "POST",
      agent: asked.agent,
      headers: {
        "content-type": "application/json",
        accept: "text/event-stream",
        "content-length": Buffer.byteLength(asked.body),
        ...(asked.apiKey === undefined ? {} : { authorization: `Bearer ${asked.apiKey}` }),
      },
    });

    const end = (how: Ending) => {
      if (ending !== undefined) return;
      ending = how;
      const endAt = parser.doneAt ?? performance.now();
      clearTimeout(silence);
      asked.signal.removeEventListener("abort", abort);
      if (how.kind !== "complete") sent.destroy();
      const stale = how.kind === "broken" && sent.reusedSocket && status === undefined;
      if (stale && codeOf(how.error) === "ECONNRESET" && !asked.signal.aborted) resolve("stale connection");
      else resolve(answerOf({ parser, status, refusal, ending: how, sentAt, endAt, expected: asked.expected }));
    };
    const broken = (error: unknown) => end({ kind: "broken", error, connected });
    const abort = () => broken(new Error("the run was ended"));
    const silence = setTimeout(() => end({ kind: "stalled" }), asked.stallMs);

    const listen = (response: IncomingMessage) => {
      connected = true;
      status = response.statusCode ?? 0;
      response.on("data", (bytes: Buffer) => {
        const at = performance.now();
        silence.refresh();
        if (status === 200) parser.push(bytes, at);
        else if (refusal.length < longestErrorBytes) refusal += bytes.toString("utf8");
        if (parser.doneAt === at) setTimeout(() => broken(undefined), farewellMs).unref();
      });
      response.on("end", () => end({ kind: "complete" }));
      response.on("error", broken);
      response.on("close", () => broken(new Error("the connection broke")));
    };

    sent.on("socket", (socket) => {
      if (socket.connecting) socket.once("connect", () => (connected = true));
      else connected = true;
    });
    sent.on("response", listen);
    sent.on("error", broken);
    asked.signal.addEventListener("abort", abort, { once: true });
    if (asked.signal.aborted) abort();
    const sentAt = performance.now();
    sent.end(asked.body);
  });
}

function answerOf(seen: {
  parser: StreamParser;
  status: number | undefined;
  refusal: string;
  ending: Ending;
  sentAt: number;
  endAt: number;
  expected: string | undefined;
}): StreamedAnswer {
  const { parser, sentAt, endAt } = seen;
  const { outcome, error } = judge(seen);
  return {
    outcome,
    text: parser.text,
    sentAt,
    tokenAt: parser.tokenAt,
    endAt,
    ...parser.usage,
    ...(parser.reused === undefined ? {} : { reused: parser.reused }),
    ...(error === undefined ? {} : { error }),
  };
}

function judge(seen: {
  parser: StreamParser;
  status: number | undefined;
  refusal: string;
  ending: Ending;
  expected: string | undefined;
}): { outcome: Outcome; error?: string } {
  const { parser, status, refusal, ending, expected } = seen;
  if (status !== undefined && status !== 200) {
    return { outcome: `http ${status}`, error: refusal === "" ? "an empty answer" : errorWords(refusal) };
  }
  if (parser.error !== undefined) return { outcome: "cut", error: parser.error };
  if (parser.doneAt === undefined) {
    if (ending.kind === "stalled") return { outcome: "stalled", error: "no byte for longer than the limit" };
    if (ending.kind === "broken") {
      return { outcome: ending.connected ? "cut" : "unreachable", error: describe(ending.error) };
    }
    if (!parser.finished) return { outcome: "cut", error: "the stream ended without [DONE] and finish_reason" };
  }
  if (expected === undefined || parser.text === expected) return { outcome: "ok" };
  return { outcome: "wrong", error: `answered ${quoted(parser.text)} instead of ${quoted(expected)}` };
}

function quoted(text: string): string {
  return JSON.stringify(text.length > 120 ? `${text.slice(0, 120)}…` : text);
}
