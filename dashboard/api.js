/**
 * The server as the page sees it: its state, its model, and a streamed chat. Failures are ApiError with a sentence for
 * people; `status` 0 means that there was no answer at all.
 */

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.code = code;
  }
}

/** "ok", "loading", "hung", "failed", or "gone" when nobody answers. */
export async function readState() {
  try {
    const response = await fetch("health", { cache: "no-store" });
    const { status } = await response.json();
    return status;
  } catch {
    return "gone";
  }
}

/** The model's name, and why its KV is not reused where it is not. */
export async function readModel(key) {
  const response = await ask("v1/models", { headers: headersWith(key) });
  const { data } = await response.json();
  const model = data.find(({ id }) => id !== "default");
  return { name: model?.id ?? "", reuseRefused: model?.reprise?.reuse_refused };
}

/**
 * Sends a chat and calls `onText` with each piece of the answer.
 *
 * @returns Reprise's report on the prompt and the usage, from the stream's last chunks.
 */
export async function streamChat({ messages, key, signal, onText }) {
  const response = await ask("v1/chat/completions", {
    method: "POST",
    headers: { ...headersWith(key), "content-type": "application/json" },
    // Greedy, so that the same prompt sent again gives the same answer and only the time differs.
    body: JSON.stringify({ messages, stream: true, stream_options: { include_usage: true }, temperature: 0 }),
    signal,
  });
  for await (const data of readEvents(response.body)) {
    if (data === "[DONE]") break;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(response.status, chunk.error.code, inWords(0, chunk.error));
    const text = chunk.choices[0]?.delta?.content;
    if (text) onText(text);
    if (chunk.reprise) return { reprise: chunk.reprise, usage: chunk.usage };
  }
  throw new ApiError(0, "cut", "The answer was cut off before its end. Try again.");
}

async function ask(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "gone", "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({ error: {} }));
  throw new ApiError(response.status, error?.code, inWords(response.status, error ?? {}));
}

function headersWith(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

/** The data of each server-sent event; comments (keep-alives) are skipped. */
async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const events = (rest + value).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const event of events) if (event.startsWith("data:")) yield event.slice(5).trim();
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function inWords(status, { code, message }) {
  if (status === 401) return "This server needs an API key.";
  if (code === "context_length_exceeded") {
    return "This is more than the model can read at once. Shorten the text, or start a new chat.";
  }
  if (status === 413) return "The text is too large to send. Shorten it.";
  if (status === 429) return "The server is busy: too many requests are waiting. Try again in a moment.";
  if (code === "engine_loading") return "The model is still being loaded. Try again in a few seconds.";
  if (code === "engine_failed") return "The engine stopped and is being started again. Try again in a few seconds.";
  return message ?? `The server answered with status ${status}.`;
}
