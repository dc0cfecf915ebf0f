/** A visitor at the cache's door that wants no session: to look at its figures, to clear or to compact it. */
import { connect } from "node:net";
import { within } from "../../deadline.ts";
import type { Cleared } from "../../session.ts";
import { codeOf, RepriseError } from "../../errors.ts";
import type { Compacted } from "../../tier.ts";
import { Connection } from "./connection.ts";
import { defaultChannelLimits } from "../channel.ts";
import { checkSocket } from "../socket-place.ts";

const connectMs = 5000;
const statsMs = 5000;
/** A large disk's files take a while to remove. */
const clearMs = 120_000;
/** What is live of a large disk is copied, behind everything else: the most that the protocol lets anybody wait. */
const compactMs = 3_600_000;

export class CacheControl implements AsyncDisposable {
  readonly #connection: Connection;
  readonly #socketPath: string;

  private constructor(connection: Connection, socketPath: string) {
    this.#connection = connection;
    this.#socketPath = socketPath;
  }

  /**
   * @returns undefined when nobody listens there.
   * @throws RepriseError CACHE_UNAVAILABLE when the cache does not answer or is another user's, or the refusal's own code.
   */
  static async connect(socketPath: string): Promise<CacheControl | undefined> {
    await checkSocket(socketPath);
    let reason: Error | undefined;
    const onEnd = (why: Error | undefined) => (reason = why);
    // Its own requests may take long; nothing else needs a sign of life.
    const connection = new Connection(connect(socketPath), {
      epoch: 1,
      limits: defaultChannelLimits,
      pingMs: 2 * compactMs,
      onEnd,
    });
    try {
      const welcome = await within(connection.handshake({ space: null, rank: 0, slotBytes: [] }), connectMs);
      if (welcome === "late") throw new RepriseError("CACHE_UNAVAILABLE", "no answer to the handshake");
      return new CacheControl(connection, socketPath);
    } catch (error) {
      const isNobody = ["ENOENT", "ECONNREFUSED", "ENOTSOCK"].includes(codeOf(reason) ?? "");
      connection.destroy(new RepriseError("CANCELLED", "closed"));
      if (isNobody) return undefined;
      throw error;
    }
  }

  /** The cache's figures, as CacheStats has them. @throws RepriseError CACHE_UNAVAILABLE */
  async stats(): Promise<{ readonly [key: string]: unknown }> {
    return (await this.#connection.stats({ deadlineMs: statsMs })) ?? this.#gone("tell its figures");
  }

  /** Makes the cache forget all that it has stored. @throws RepriseError CACHE_UNAVAILABLE */
  async clear(): Promise<Cleared> {
    return (await this.#connection.clear({ deadlineMs: clearMs })) ?? this.#gone("clear what it has stored");
  }

  /** Makes the cache give back the room of what cannot be found any more. @throws RepriseError CACHE_UNAVAILABLE */
  async compact(): Promise<Compacted> {
    return (await this.#connection.compact({ deadlineMs: compactMs })) ?? this.#gone("compact its disk");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#connection.bye();
  }

  #gone(what: string): never {
    throw new RepriseError(
      "CACHE_UNAVAILABLE",
      `the cache at ${this.#socketPath} did not ${what}; its log may say why`,
    );
  }
}
