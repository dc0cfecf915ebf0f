export { openCache } from "./open-cache.ts";
export type {
  LibraryCache,
  LoadedPayload,
  LoadedText,
  OpenCacheOptions,
  TextOptions,
  WritePayload,
} from "./open-cache.ts";
export type { CacheStats } from "./cache/counters.ts";
export type { Root, Tokens } from "./cache/chunk.ts";
export type { Lookup } from "./cache/session.ts";
export { doubleBits, spaceId, type SpaceDescription, type SpaceId } from "./cache/space.ts";
export { RepriseError, type ErrorCode } from "./errors.ts";
export { createLog, type Log } from "./log.ts";
export type { TierName } from "./tier.ts";
