/**
 * Texts that are being brought into memory by whoever expects to read them (`prefetch`, `pin`): so many at a time of one tenant, and of all
 * of them. Nobody waits in line: what is one too many is refused.
 *
 *     engine's session ──► its leases              half of the pool at most
 *     texts that are brought ──► leases of their own      the same, all together
 */
import { RepriseError } from "../../errors.ts";
import type { HolderId } from "../pool/leases.ts";
import type { LocalSession } from "./local-session.ts";

/** An agent's round of tools, and twice that. */
const mostOfTenant = 16;
const mostOfAll = 64;
/** Whose leases theirs are: those of sessions begin at 1. An engine loads as before, however much is brought. */
const holder = 0 as HolderId;

export class BroughtTexts {
  readonly #byTenant = new Map<string, number>();
  readonly #open = new Set<LocalSession>();
  #all = 0;

  /**
   * Brings a text in every space of these sessions.
   *
   * @returns the most tokens brought in any of them
   * @throws RepriseError QUEUE_FULL
   */
  async bring(
    tenant: string,
    sessions: Iterable<LocalSession>,
    work: (session: LocalSession) => Promise<number>,
  ): Promise<number> {
    const ofTenant = this.#byTenant.get(tenant) ?? 0;
    if (ofTenant >= mostOfTenant || this.#all >= mostOfAll)
      throw new RepriseError(
        "QUEUE_FULL",
        `${Math.max(ofTenant, this.#all)} texts are being brought into memory already`,
      );
    this.#byTenant.set(tenant, ofTenant + 1);
    this.#all += 1;
    const bySpace = new Map(Array.from(sessions, (session) => [session.spaceId, session]));
    const own = Array.from(bySpace.values(), (session) => session.beside(holder));
    for (const session of own) this.#open.add(session);
    try {
      return Math.max(0, ...(await Promise.all(own.map(work))));
    } finally {
      for (const session of own) this.#open.delete(session);
      this.#all -= 1;
      const left = this.#byTenant.get(tenant)! - 1; // set above
      if (left === 0) this.#byTenant.delete(tenant);
      else this.#byTenant.set(tenant, left);
    }
  }

  /** Ends what is being brought: every lease falls. */
  async close(): Promise<void> {
    for (const session of this.#open) await session.close();
  }
}
