/** Sizes in bytes as people write and read them. */

const units: Readonly<Record<string, number>> = {
  "": 1,
  b: 1,
  kb: 1e3,
  mb: 1e6,
  gb: 1e9,
  tb: 1e12,
  kib: 1024,
  mib: 1024 ** 2,
  gib: 1024 ** 3,
  tib: 1024 ** 4,
};

/** Bytes from "2GiB", "1.5 GB", "4096". @throws Error */
export function parseBytes(given: string): number {
  const [, digits, unit] = /^\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(given) ?? [];
  const factor = units[unit?.toLowerCase() ?? "?"];
  const value = Math.floor(Number(digits) * (factor ?? Number.NaN));
  if (!Number.isSafeInteger(value)) throw new Error(`"${given}" is not a size such as 512MiB, 2GiB or 20GB`);
  return value;
}

/** "1.5 GiB": for people. */
export function formatBytes(value: number): string {
  const names = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = Math.min(names.length - 1, Math.max(0, Math.floor(Math.log2(Math.max(value, 1)) / 10)));
  const scaled = value / 1024 ** step;
  return `${Number.isInteger(scaled) ? scaled : scaled.toFixed(1)} ${names[step]}`;
}
