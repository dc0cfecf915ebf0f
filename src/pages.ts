/** Pages of 4 KiB: slots of the pool begin and end at them, and so do records on disk. Memory for payloads may be padded to whole ones. */

export const pageBytes = 4096;

/** So many bytes in whole pages. */
export function padded(bytes: number): number {
  return Math.ceil(bytes / pageBytes) * pageBytes;
}
