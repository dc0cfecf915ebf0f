/**
 * The handshake: a guest's hello is answered with a welcome, or with the reason why it may not enter.
 *
 *     hello ──► this version? ──► the token? ──► room for it? ──► a session of its space and rank ──► welcome
 *                   └─────────────────┴──────────────┴────────────────────┴──► error, and the connection ends
 */
import type { Cache } from "../../cache/cache.ts";
import type { LocalSession } from "../../cache/sessions/local-session.ts";
import { RepriseError } from "../../errors.ts";
import type { SpaceId } from "../../identity/space.ts";
import { registeredPool, protocolVersion, type AnswerOf, type RequestOf } from "../protocol.ts";

export interface HandshakeOptions {
  readonly cache: Pick<Cache, "openSession" | "stats">;
  readonly mayEnter: (token: string) => boolean;
  /** Told of each session that was opened: whose it is, and what people call the model ("" when nobody says). */
  readonly onSession?: ((spaceId: SpaceId, model: string) => void) | undefined;
  /** Why this guest cannot be served, told in answer to its hello. */
  readonly refusal?: RepriseError | undefined;
}

export interface Entered {
  readonly welcome: AnswerOf<"welcome">;
  /** undefined: the guest wants none. */
  readonly session: LocalSession | undefined;
  /** The guest's device may read and write the pool's pages as they are now. */
  readonly hasRegisteredPool: boolean;
}

/** Opens the guest's session when it may enter; @returns the refusal when it may not. */
export function enter(hello: RequestOf<"hello">, options: HandshakeOptions): Entered | RepriseError {
  const { cache, mayEnter, onSession, refusal } = options;
  if (refusal !== undefined) return refusal;
  if (hello.version !== protocolVersion)
    return new RepriseError(
      "PROTOCOL",
      `protocol version ${hello.version} was asked for; this cache speaks ${protocolVersion}`,
    );
  if (!mayEnter(hello.token)) return new RepriseError("PROTOCOL", "the token is not this cache's");
  const { memory } = cache.stats();
  const hasRegisteredPool = hello.features.includes(registeredPool);
  if (hasRegisteredPool && memory.leavingBytes > 0)
    return new RepriseError("QUEUE_FULL", "the memory pool is being shrunk: connect when it has been");
  const session = openSession(hello, cache);
  if (session instanceof RepriseError) return session;
  if (session !== undefined) onSession?.(session.spaceId, hello.model);
  const welcome: AnswerOf<"welcome"> = {
    type: "welcome",
    id: hello.id,
    version: protocolVersion,
    features: hasRegisteredPool ? [registeredPool] : [],
    spaceId: session?.spaceId ?? "",
    poolPath: session?.pool.path ?? "",
    poolBytes: session?.pool.bytes ?? 0,
    poolCapacityBytes: session === undefined ? 0 : memory.capacityBytes,
  };
  return { welcome, session, hasRegisteredPool };
}

function openSession(
  { space, rank, slotBytes }: RequestOf<"hello">,
  cache: HandshakeOptions["cache"],
): LocalSession | RepriseError | undefined {
  try {
    return space === undefined ? undefined : cache.openSession({ space, rank, slotBytes });
  } catch (error) {
    if (error instanceof RepriseError) return error;
    throw error;
  }
}
