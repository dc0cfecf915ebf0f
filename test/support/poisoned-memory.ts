/**
 * Memory that is lent is noise as soon as it may be: whoever uses it longer is found out, also where the next owner would
 * have come too late to be seen. Set up for every test (vitest.config.ts).
 *
 *     a frame's body          until onFrame returns            src/wire/channel.ts
 *     the tokens of a verb    until its first await            src/session.ts
 *     a chunk's slot          until it is taken                src/cache/pool/chunk-store.ts
 */
import { vi } from "vitest";
import type * as sessions from "../../src/cache/sessions/local-session.ts";
import type { ChunkId } from "../../src/cache/index/chunk-id.ts";
import type * as stores from "../../src/cache/pool/chunk-store.ts";
import type { Root } from "../../src/identity/keys.ts";
import type { Tokens } from "../../src/identity/tokens.ts";
import type { LoadedPart, LoadOptions, ReadOptions, WaitOptions } from "../../src/session.ts";
import type * as channels from "../../src/wire/channel.ts";

const noise = 0xa5;

vi.mock("../../src/wire/channel.ts", async (original) => {
  const actual = await original<typeof channels>();
  class Channel extends actual.Channel {
    constructor(...[socket, limits, events]: ConstructorParameters<typeof actual.Channel>) {
      const onFrame = (body: Buffer) => {
        events.onFrame(body);
        body.fill(noise);
      };
      super(socket, limits, { onFrame, onEnd: (reason) => events.onEnd(reason) });
    }
  }
  return { ...actual, Channel };
});

vi.mock("../../src/cache/sessions/local-session.ts", async (original) => {
  const actual = await original<typeof sessions>();
  class LocalSession extends actual.LocalSession {
    override lookup(root: Root, tokens: Tokens, options: ReadOptions) {
      return lent(tokens, (text) => super.lookup(root, text, options));
    }

    override load(root: Root, tokens: Tokens, from: number, options: LoadOptions) {
      const text = tokens.slice();
      const batches = super.load(root, text, from, options);
      const next = batches.next.bind(batches);
      batches.next = (): Promise<IteratorResult<readonly LoadedPart[], void>> => {
        const batch = next();
        text.fill(noise);
        return batch;
      };
      return batches;
    }

    override touch(root: Root, tokens: Tokens, wait: WaitOptions) {
      return lent(tokens, (text) => super.touch(root, text, wait));
    }

    override pin(root: Root, tokens: Tokens, seconds: number, wait: WaitOptions) {
      return lent(tokens, (text) => super.pin(root, text, seconds, wait));
    }

    override reserve(root: Root, tokens: Tokens, wait: WaitOptions) {
      return lent(tokens, (text) => super.reserve(root, text, wait));
    }
  }
  return { ...actual, LocalSession };
});

vi.mock("../../src/cache/pool/chunk-store.ts", async (original) => {
  const actual = await original<typeof stores>();
  class ChunkStore extends actual.ChunkStore {
    override takeSlot(chunk: ChunkId, rank: number, ...why: ["room" | "dropped"] | []) {
      const offset = this.chunks.slot(chunk, rank);
      if (offset !== undefined) this.pool.view(offset, this.chunks.bytes(chunk, rank)).fill(noise);
      super.takeSlot(chunk, rank, ...why);
    }
  }
  return { ...actual, ChunkStore };
});

/** Calls a verb with a copy of the tokens, which is overwritten when it has come to its first await. */
function lent<T>(tokens: Tokens, verb: (text: Tokens) => T): T {
  const text = tokens.slice();
  const answer = verb(text);
  text.fill(noise);
  return answer;
}
