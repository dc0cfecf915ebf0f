/** A host under load: a cache process, engines that keep asking it, and how each answer was. */
import { execFile } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { PoolMapping } from "../../../src/ffi/pool-mapping.ts";
import { bareRoot } from "../../../src/identity/keys.ts";
import { connectCache, type CacheLink } from "../../../src/wire/guest/link.ts";
import { CacheControl } from "../../../src/wire/guest/control.ts";
import { counting, payloadOf, save, testSpace, type SlotMemory } from "../cache.ts";
import type { RunningServer } from "../server.ts";

/** Bytes of a chunk, ten of which are a text. */
export const payloadBytes = 20_000;
const textTokens = 40;
const space = testSpace({ weights: "fa" });

export interface HostOptions {
  readonly name: string;
  readonly process: Pick<RunningServer, "pid" | "killAll">;
  readonly socketPath: string;
  /** Where its HTTP is: it has the shipped model. */
  readonly url?: string;
  readonly netns?: string;
  /** `libfaketime` reads the offset of its clock from here. */
  readonly clockFile?: string;
  /** It is itself what a fault kills: its guests wait until it is back. */
  readonly mayDie?: boolean;
}

export class FaultHost {
  readonly options: HostOptions;
  readonly #guests: { readonly session: CacheLink; readonly memory: SlotMemory; close(): Promise<void> }[] = [];
  #turn = 0;

  constructor(options: HostOptions) {
    this.options = options;
  }

  /** Two engines. */
  async connect(): Promise<void> {
    for (let i = 0; i < 2; i += 1) this.#guests.push(await guestOf(this.options.socketPath));
  }

  get isConnected(): boolean {
    return this.#guests.every(({ session }) => session.isConnected);
  }

  /**
   * A request as an engine makes it: loads what is stored, compares every byte, and stores what is not.
   *
   * @returns tokens that came from the cache
   * @throws Error when a byte is another's
   */
  async request(text: number): Promise<number> {
    const { session, memory } = this.#guests[(this.#turn += 1) % this.#guests.length]!; // two of them
    const tokens = counting(textTokens, 1 + text * 1000);
    let loaded = 0;
    for await (const batch of session.load(bareRoot, tokens, 0, { deadlineMs: 2000 })) {
      for (const { lease, firstToken, tokenCount, take, target, slot } of batch) {
        const own = tokens.subarray(firstToken, firstToken + tokenCount);
        const isRight = Buffer.compare(
          memory.view(slot.offset, slot.bytes),
          payloadOf(own, firstToken, 0, payloadBytes),
        );
        if (!session.holds(lease)) break; // it fell while it was looked at: an engine computes it
        if (isRight !== 0) throw new Error(`text ${text}: the chunk at ${firstToken} has another's bytes`);
        loaded = target + take;
      }
      session.release(batch.map(({ lease }) => lease));
    }
    if (loaded < textTokens) await save(session, memory, tokens, { bytes: payloadBytes });
    return loaded;
  }

  async prefetch(text: number): Promise<void> {
    const { session } = this.#guests[0]!;
    await session.prefetch(bareRoot, counting(textTokens, 1 + text * 1000), { deadlineMs: 2000 });
  }

  /** What the shipped model says to a prompt, in deterministic mode: the same with and without a cache. */
  async ask(prompt: string, use: "cache" | "no cache"): Promise<string> {
    const reprise = use === "cache" ? {} : { reprise: { read: false, save: false } };
    const body = JSON.stringify({ prompt, max_tokens: 12, temperature: 0, ...reprise });
    const { netns, url = "" } = this.options;
    const inside = netns === undefined ? [] : ["ip", "netns", "exec", netns];
    const curl = ["curl", "-sS", "--fail-with-body", "-m", "60", "-H", "content-type: application/json", "-d", body];
    const [program, ...args] = [...inside, ...curl, `${url}/v1/completions`];
    const { stdout } = await promisify(execFile)(program, args);
    return (JSON.parse(stdout) as { choices: { text: string }[] }).choices[0]!.text;
  }

  /** Seconds that its clock is ahead; does nothing where the clock cannot be moved. */
  setClock(seconds: number): void {
    if (this.options.clockFile !== undefined)
      writeFileSync(this.options.clockFile, `${seconds < 0 ? "" : "+"}${seconds}\n`);
  }

  async stats(): Promise<{ readonly leases: number; readonly loadedTokens: Readonly<Record<string, number>> }> {
    const control = await CacheControl.connect(this.options.socketPath);
    await using _control = control;
    return (await control!.stats()) as { leases: number; loadedTokens: Record<string, number> };
  }

  /** Memory of its own: not the pool's, which has a size of its own. */
  get anonymousBytes(): number {
    const status = readFileSync(`/proc/${this.options.process.pid}/status`, "utf8");
    return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1]) * 1024;
  }

  async close(): Promise<void> {
    for (const guest of this.#guests) await guest.close();
    await this.options.process.killAll();
  }
}

/** What makes a process's clock one that a test moves. Undefined: libfaketime is not installed. */
export function movableClock(
  folder: string,
): { readonly file: string; readonly environment: Record<string, string> } | undefined {
  const library = ["x86_64", "aarch64"]
    .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`)
    .find((path) => existsSync(path));
  if (library === undefined) return undefined;
  mkdirSync(folder, { recursive: true });
  const file = join(folder, "clock");
  writeFileSync(file, "+0\n");
  const settings = { FAKETIME_TIMESTAMP_FILE: file, FAKETIME_CACHE_DURATION: "1", FAKETIME_DONT_FAKE_MONOTONIC: "1" };
  return { file, environment: { LD_PRELOAD: library, ...settings } };
}

async function guestOf(socketPath: string) {
  let mapping: PoolMapping | undefined;
  const map = ({ path, bytes }: { path: string; bytes: number }) => {
    mapping?.close();
    mapping = PoolMapping.open(path, bytes);
  };
  const options = { space, rank: 0, slotBytes: [24_576], socketPath, reconnectMs: 50 };
  const session = await connectCache({ ...options, onPoolChanged: map });
  map(session.pool);
  return {
    session,
    memory: { view: (offset: number, bytes: number) => mapping!.slot(offset, bytes) },
    async close() {
      await session.close();
      mapping?.close();
    },
  };
}
