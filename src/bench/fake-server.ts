/** A server for tests that answers as its script says: every byte, and every silence, is the test's. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";

export type Script = (
  asked: { path: string; body: string },
  response: ServerResponse,
  request: IncomingMessage,
) => void;

export interface FakeServer extends AsyncDisposable {
  readonly url: string;
}

export async function startFakeServer(script: Script): Promise<FakeServer> {
  const server = createServer((request, response) => {
    void text(request).then((body) => script({ path: request.url ?? "", body }, response, request));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo; // it listens on TCP
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

export const doneFrame = "data: [DONE]\n\n";

/** A frame with a piece of a chat answer. */
export function pieceFrame(content: string): string {
  return `data: ${JSON.stringify({ choices: [{ index: 0, delta: { content } }] })}\n\n`;
}

/** A whole answer, as Reprise streams it: role, pieces, finish, usage, end. */
export function wholeAnswer(pieces: readonly string[]): string {
  return [
    `data: ${JSON.stringify({ choices: [{ index: 0, delta: { role: "assistant", content: "" } }] })}\n\n`,
    ...pieces.map(pieceFrame),
    `data: ${JSON.stringify({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}\n\n`,
    `data: ${JSON.stringify({
      choices: [],
      usage: {
        prompt_tokens: 100,
        completion_tokens: pieces.length,
        prompt_tokens_details: { cached_tokens: 60 },
      },
      reprise: { reused: { resident: 0, memory: 40, disk: 20 } },
    })}\n\n`,
    doneFrame,
  ].join("");
}
