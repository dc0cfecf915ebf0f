/**
 * Another host as this one reads from it: one connection for questions, so that they never wait behind payloads, and two for those.
 *
 *     connecting ──all stand──► there ──one ends──► away ──backoff──► connecting        until it is closed
 *
 * Connections are made in the background. Who asks while the host is not there is told so at once, with the reason.
 */
import { within } from "../../deadline.ts";
import { describe, RepriseError } from "../../errors.ts";
import type { ChunkKey, RootKey } from "../../identity/keys.ts";
import type { SpaceId } from "../../identity/space.ts";
import type { Log } from "../../log.ts";
import type { PayloadPacker } from "../../tiers/shared/packing.ts";
import type { PeerAddress } from "./address.ts";
import { type Fetched, PeerLink, type WantedPart } from "./peer-link.ts";

export interface PeerHostOptions {
  readonly address: PeerAddress;
  /** Undefined: nothing is to be packed. */
  readonly packer: PayloadPacker | undefined;
  readonly log: Log;
  readonly stallMs: number;
  readonly pingMs: number;
  /** The pause before the next try to connect: this one, then doubled up to 32 times as long. */
  readonly reconnectMs: number;
}

const connectMs = 5000;
/** For payloads: while one waits for the next request, the other is busy. */
const payloadLinks = 2;

interface Links {
  readonly questions: PeerLink;
  readonly payloads: readonly PeerLink[];
}

export class PeerHost {
  readonly #options: PeerHostOptions;
  #links: Links | undefined;
  #fault: Error = new Error("it is not connected yet");
  #retry: NodeJS.Timeout | undefined;
  #tries = 0;
  #closed = false;

  constructor(options: PeerHostOptions) {
    this.#options = options;
    void this.#connect();
  }

  get name(): string {
    const { host, port } = this.#options.address;
    return `${host.includes(":") ? `[${host}]` : host}:${port}`;
  }

  get isThere(): boolean {
    return this.#links !== undefined;
  }

  /** Payload lengths of the leading ones of these keys that the host has. @throws RepriseError TIER_UNAVAILABLE */
  async find(space: SpaceId, root: RootKey, keys: readonly ChunkKey[]): Promise<(readonly number[])[]> {
    const found = await this.#mustBeThere().questions.find({ space, root, keys });
    return found.map(({ payloadBytes }) => payloadBytes);
  }

  /** @throws RepriseError TIER_UNAVAILABLE */
  fetch(key: ChunkKey, wanted: readonly WantedPart[], signal: AbortSignal): Promise<Fetched> {
    const { payloads } = this.#mustBeThere();
    const link = payloads.reduce((least, each) => (each.wantedBytes < least.wantedBytes ? each : least));
    return link.fetch(key, wanted, signal);
  }

  /** It is of no use now: its connections end, and are made again. */
  giveUp(reason: Error): void {
    this.#links?.questions.destroy(reason);
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    this.giveUp(new RepriseError("TIER_UNAVAILABLE", "the tier is closed"));
  }

  #mustBeThere(): Links {
    if (this.#links !== undefined) return this.#links;
    throw new RepriseError("TIER_UNAVAILABLE", `${this.name} is not there: ${describe(this.#fault)}`);
  }

  async #connect(): Promise<void> {
    const { address, packer, log, stallMs, pingMs } = this.#options;
    const made: PeerLink[] = [];
    const onOver = (reason: Error) => this.#lost(reason, made);
    const open = async () => {
      const opening = PeerLink.open({ address, packer, stallMs, pingMs, onOver });
      void opening.then(
        (link) => made.push(link),
        () => {},
      ); // whatever came after the time was over ends too
      const link = await within(opening, connectMs);
      if (link !== "late") return link;
      void opening.then(
        (late) => late.destroy(new Error("it came late")),
        () => {},
      );
      throw new RepriseError("TIER_UNAVAILABLE", `no answer within ${connectMs} ms`);
    };
    try {
      const questions = await open();
      const payloads = await Promise.all(Array.from({ length: payloadLinks }, open));
      const over = [questions, ...payloads].find(({ isOver }) => isOver);
      if (over !== undefined || this.#closed) throw new Error("it closed the connection");
      this.#links = { questions, payloads };
      this.#tries = 0;
      log.info(`${this.name} is there`);
    } catch (error) {
      for (const link of made) link.destroy(new Error("not all connections could be made"));
      this.#fault = error instanceof Error ? error : new Error(String(error));
      this.#later();
    }
  }

  /** One of the connections has ended: the others go with it. */
  #lost(reason: Error, links: readonly PeerLink[]): void {
    if (this.#links === undefined || !links.includes(this.#links.questions)) return; // it is being connected
    this.#links = undefined;
    this.#fault = reason;
    for (const link of links) link.destroy(reason);
    if (this.#closed) return;
    this.#options.log.warn(`${describe(reason)}; going on without it`);
    this.#later();
  }

  #later(): void {
    if (this.#closed) return;
    const { log, reconnectMs } = this.#options;
    log.debug(`${this.name} is not there: ${describe(this.#fault)}`);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#connect(), reconnectMs * 2 ** Math.min(this.#tries, 5)).unref();
    this.#tries += 1;
  }
}
