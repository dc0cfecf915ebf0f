/**
 * One request to the store and its answer, over connections that are kept. Bodies go out piece by piece and come in straight to
 * where they belong; an answer that ends early is a fault, and so is a store that says nothing for some seconds.
 */
import { request as plainRequest, type Agent, type IncomingHttpHeaders, type IncomingMessage } from "node:http";
import { request as secureRequest } from "node:https";

export interface Attempt {
  readonly method: string;
  readonly url: URL;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: readonly Uint8Array[];
  readonly agent: Agent;
  /** Takes the body of a good answer as it comes, and throws when it is not what was asked for. Undefined: it is returned. */
  readonly sink: ((bytes: Buffer) => void) | undefined;
  /** Of a body that is returned. */
  readonly maxBytes: number;
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  /** Empty where a sink took it. */
  readonly body: Buffer;
}

/** Without a byte either way. */
const silenceMs = 10_000;
/** Of what a store says about a fault. */
const maxFaultBytes = 64 * 1024;

/** However it ends, the sink is not called any more, nor the body looked at. */
export async function send(attempt: Attempt): Promise<Answer> {
  const { method, url, headers, body, agent, signal } = attempt;
  signal.throwIfAborted();
  const request = url.protocol === "https:" ? secureRequest : plainRequest;
  const length = body.reduce((sum, piece) => sum + piece.length, 0);
  const hasBody = method === "PUT" || method === "POST";
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const outgoing = request(url, {
      method,
      headers: { ...headers, ...(hasBody ? { "content-length": String(length) } : {}) },
      agent,
      signal,
    });
    outgoing.setTimeout(silenceMs, () => outgoing.destroy(new Error(`nothing was said for ${silenceMs / 1000} s`)));
    outgoing.on("error", reject);
    outgoing.on("response", resolve);
    for (const piece of body) outgoing.write(piece);
    outgoing.end();
  });
  return receive(response, attempt);
}

async function receive(response: IncomingMessage, { sink, maxBytes }: Attempt): Promise<Answer> {
  const { statusCode: status = 0, headers } = response;
  const isGood = status >= 200 && status < 300;
  const room = isGood ? maxBytes : maxFaultBytes;
  const pieces: Buffer[] = [];
  let taken = 0;
  try {
    // It throws when the connection ends before the body does.
    for await (const piece of response as AsyncIterable<Buffer>) {
      if (isGood && sink !== undefined) sink(piece);
      else if ((taken += piece.length) > room) throw new Error(`the answer has more than ${room} bytes`);
      else pieces.push(piece);
    }
  } finally {
    response.destroy(); // does nothing to one that has come whole
  }
  return { status, headers, body: Buffer.concat(pieces) };
}
