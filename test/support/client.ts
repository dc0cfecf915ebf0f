/** A bare client of the API: what the whole-system tests and benchmarks need, over fetch. */

export interface RepriseReport {
  readonly prompt_tokens: number;
  readonly computed_tokens: number;
  readonly reused: Readonly<Record<string, number>>;
  readonly anywhere_tokens: number;
  readonly ttft_ms: number;
  readonly prefill_ms: number;
  readonly load_ms: number;
}

export interface Answer {
  readonly text: string;
  readonly cachedTokens: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly report: RepriseReport;
  /** From the sending of the request to the first piece of text, as the client sees it; only of streams. */
  readonly firstTextMs?: number;
}

interface CompletionBody {
  readonly choices: readonly {
    readonly text?: string;
    readonly message?: { content: string };
    readonly delta?: { content?: string };
  }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  };
  readonly reprise?: RepriseReport;
  readonly error?: { readonly message: string };
}

/** One whole answer. `path` is `/v1/completions` or `/v1/chat/completions`. @throws Error with the server's words on any other status than 200. */
export async function ask(url: string, path: string, body: object, signal?: AbortSignal): Promise<Answer> {
  const response = await post(url, path, body, signal);
  const parsed = (await response.json()) as CompletionBody;
  const choice = parsed.choices[0];
  return answerOf(choice?.message?.content ?? choice?.text ?? "", parsed);
}

/** The same over a stream, with the time to the first text. */
export async function askStreaming(url: string, path: string, body: object, signal?: AbortSignal): Promise<Answer> {
  const started = performance.now();
  const response = await post(url, path, { ...body, stream: true, stream_options: { include_usage: true } }, signal);
  let text = "";
  let firstTextMs: number | undefined;
  let last: CompletionBody | undefined;
  for await (const data of serverSentEvents(response)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data) as CompletionBody;
    if (chunk.error !== undefined) throw new Error(chunk.error.message);
    const piece = chunk.choices[0]?.delta?.content ?? chunk.choices[0]?.text ?? "";
    if (piece !== "") firstTextMs ??= performance.now() - started;
    text += piece;
    if (chunk.usage) last = chunk;
  }
  if (last === undefined) throw new Error("the stream ended without usage");
  return { ...answerOf(text, last), ...(firstTextMs === undefined ? {} : { firstTextMs }) };
}

export async function stats(url: string): Promise<Record<string, unknown>> {
  return (await (await fetch(`${url}/cache/stats`)).json()) as Record<string, unknown>;
}

/** The value of one metric, summed over its labels. */
export async function metric(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const lines = text.split("\n").filter((line) => line.startsWith(`${name} `) || line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

export async function tokenCount(url: string, content: string): Promise<number> {
  const response = await post(url, "/tokenize", { content });
  return ((await response.json()) as { count: number }).count;
}

async function post(url: string, path: string, body: object, signal?: AbortSignal): Promise<Response> {
  const response = await fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
    ...(signal === undefined ? {} : { signal }),
  });
  if (response.status !== 200) throw new Error(`${path} answered ${response.status}: ${await response.text()}`);
  return response;
}

function answerOf(text: string, body: CompletionBody): Answer {
  if (body.usage === undefined || body.reprise === undefined) throw new Error("the answer has no usage");
  return {
    text,
    cachedTokens: body.usage.prompt_tokens_details.cached_tokens,
    promptTokens: body.usage.prompt_tokens,
    completionTokens: body.usage.completion_tokens,
    report: body.reprise,
  };
}

async function* serverSentEvents(response: Response): AsyncGenerator<string> {
  let buffered = "";
  const decoder = new TextDecoder();
  for await (const bytes of response.body as unknown as AsyncIterable<Uint8Array>) {
    buffered += decoder.decode(bytes, { stream: true });
    const events = buffered.split("\n\n");
    buffered = events.pop() ?? "";
    for (const event of events) if (event.startsWith("data: ")) yield event.slice("data: ".length);
  }
}
