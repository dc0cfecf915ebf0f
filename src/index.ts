/** The package as programs import it: the library, its types, and what they throw. */
export { openCache } from "./open-cache.ts";
export type {
  LibraryCache,
  LoadedPayload,
  LoadedText,
  OpenCacheOptions,
  PrefetchOptions,
  TextOptions,
  WritePayload,
} from "./open-cache.ts";
export type { CacheStats } from "./cache/cache-stats.ts";
export type {
  CacheEvent,
  ChunkEvent,
  ClearedEvent,
  EventBatch,
  SubscribeOptions,
  Subscription,
} from "./cache/subscription.ts";
export type { Root } from "./identity/keys.ts";
export type { Tokens } from "./identity/tokens.ts";
export type { Lookup } from "./session.ts";
export { doubleBits, spaceId, type SpaceDescription, type SpaceId } from "./identity/space.ts";
export { RepriseError, type ErrorCode } from "./errors.ts";
export { createLog, type Log } from "./log.ts";
export type { TierName } from "./tier.ts";
