/** What the disk tier says of itself, beyond what every tier does. */
import type { TierStats } from "../../tier.ts";
import type { DriveStats } from "./volume.ts";

export interface DiskTierStats extends TierStats {
  readonly regions: number;
  /** Bytes of regions of another format version, given back when room is needed. */
  readonly foreignBytes: number;
  /** Records found at start whose writing had not ended. */
  readonly tornRecords: number;
  /** Bytes of records that can still be read; the rest of `usedBytes` is garbage, reserved, or says what lies where. */
  readonly liveBytes: number;
  /** Bytes that were read again in search of rot. */
  readonly scrubbedBytes: number;
  /** How often all there was has been read so. */
  readonly scrubRounds: number;
  /** What lay here is still being read. */
  readonly recovering: boolean;
  readonly drives: readonly DriveStats[];
}
