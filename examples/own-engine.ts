/**
 * An engine of your own behind Reprise: three lines, marked below.
 *
 * The engine here is a toy whose state after each token is 32 bytes that depend on every token before it, and that takes
 * its time: what a KV cache is to a language model. Run it twice on one directory: the second run reads nothing.
 *
 *     npm run build && node scripts/run-ts.mjs examples/own-engine.ts /tmp/reprise-example    (Node 24 needs no run-ts.mjs)
 */
import { createHash } from "node:crypto";
import { openCache } from "reprise";

const bytesPerToken = 32;

/** Reads `tokens` from position `from` on, given the states of those before it. @returns the states of all */
function read(tokens: Uint32Array, from: number, known: Uint8Array): Uint8Array {
  const states = new Uint8Array(tokens.length * bytesPerToken);
  states.set(known);
  for (let position = from; position < tokens.length; position += 1) {
    const before = states.subarray((position - 1) * bytesPerToken, position * bytesPerToken);
    const hash = createHash("sha256")
      .update(position === 0 ? "" : before)
      .update(String(tokens[position]));
    states.set(hash.digest(), position * bytesPerToken);
  }
  return states;
}

export interface Report {
  readonly promptTokens: number;
  readonly knownTokens: number;
  readonly states: Uint8Array;
}

/** Reads each prompt with the help of all that was read before, in this run or an earlier one. */
export async function run(directory: string, prompts: readonly Uint32Array[]): Promise<Report[]> {
  const name = "toy-engine 1, SHA-256 states"; // everything that changes the bytes
  await using cache = await openCache({
    name,
    directory,
    memoryBytes: 64 << 20,
    diskBytes: 256 << 20,
    bytesPerToken,
    chunkTokens: 64,
  });

  const reports: Report[] = [];
  for (const tokens of prompts) {
    const { hitTokens } = await cache.lookup(tokens); //                                        1. what is known?
    const known = new Uint8Array(hitTokens * bytesPerToken);
    let knownTokens = 0;
    {
      using loaded = await cache.load(tokens); //                                         2. grab it
      for (const { target, take, bytes } of loaded.chunks)
        known.set(bytes.subarray(0, take * bytesPerToken), target * bytesPerToken);
      knownTokens = loaded.hitTokens;
    }

    const states = read(tokens, knownTokens, known.subarray(0, knownTokens * bytesPerToken));

    await cache.save(tokens, (firstToken, tokenCount, into) => {
      //                             3. save the rest
      const payload = states.subarray(firstToken * bytesPerToken, (firstToken + tokenCount) * bytesPerToken);
      into.set(payload);
      return payload.length;
    });
    reports.push({ promptTokens: tokens.length, knownTokens, states });
  }
  return reports;
}

if (process.argv[1] === import.meta.filename) {
  const system = Array.from({ length: 1000 }, (_, i) => i);
  const prompts = [1, 2, 3].map((question) => Uint32Array.from([...system, 5000 + question, 6000]));
  for (const { promptTokens, knownTokens } of await run(process.argv[2] ?? "/tmp/reprise-example", prompts))
    process.stdout.write(`${promptTokens} tokens, ${knownTokens} of them known\n`);
}
