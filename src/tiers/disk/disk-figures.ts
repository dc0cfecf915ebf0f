/** What only a disk has to show: its drives, what a start found, and the search for rot. All 0 where there is no disk. */
import type { Figure } from "../../figures.ts";
import type { DiskTierStats } from "./disk-stats.ts";
import type { DriveStats } from "./volume.ts";

type MaybeDisk = DiskTierStats | undefined;

function byDrive(read: (drive: DriveStats) => number): Pick<Figure<MaybeDisk>, "label" | "read"> {
  return {
    label: "drive",
    read: (disk) => disk?.drives.map((drive) => [drive.directory, read(drive)] as const),
  };
}

export const diskFigures: readonly Figure<MaybeDisk>[] = [
  {
    name: "reprise_disk_drives",
    kind: "gauge",
    help: "Drives in use; one that failed too often is not.",
    read: (disk) => disk?.drives.filter(({ gone }) => !gone).length,
  },
  {
    name: "reprise_disk_recovering",
    kind: "gauge",
    help: "1 while what was on the drives at the start is being read.",
    read: (disk) => (disk?.recovering === true ? 1 : 0),
  },
  {
    name: "reprise_disk_live_bytes",
    kind: "gauge",
    help: "Bytes of records that can be read; compacting frees what the tier has beyond them.",
    read: (disk) => disk?.liveBytes,
  },
  {
    name: "reprise_disk_torn_records_total",
    kind: "counter",
    help: "Records found at the start that had not been written completely.",
    read: (disk) => disk?.tornRecords,
  },
  {
    name: "reprise_disk_scrubbed_bytes_total",
    kind: "counter",
    help: "Bytes read again in search of rot.",
    read: (disk) => disk?.scrubbedBytes,
  },
  {
    name: "reprise_disk_scrub_rounds_total",
    kind: "counter",
    help: "How often everything on the drives has been read again.",
    read: (disk) => disk?.scrubRounds,
  },
  {
    name: "reprise_disk_drive_bytes",
    kind: "gauge",
    help: "Bytes of the files on a drive, reserved room included.",
    ...byDrive(({ usedBytes }) => usedBytes),
  },
  {
    name: "reprise_disk_drive_capacity_bytes",
    kind: "gauge",
    help: "Bytes that a drive may take.",
    ...byDrive(({ capacityBytes }) => capacityBytes),
  },
  {
    name: "reprise_disk_drive_errors_total",
    kind: "counter",
    help: "Reads, writes and flushes of a drive that failed.",
    ...byDrive(({ errors }) => errors),
  },
  {
    name: "reprise_disk_drive_refused_total",
    kind: "counter",
    help: "Writes that a drive's file system had no room for.",
    ...byDrive(({ refused }) => refused),
  },
];
