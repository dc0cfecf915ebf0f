/**
 * For which GPUs a CUDA library has code: what its fat binaries say, read from the file.
 *
 *     ELF section .nv_fatbin:   │ fat binary │ fat binary │ …       one for each source file
 *     fat binary:               │ magic u32, version u16, header bytes u16, bytes u64 │ entry │ entry │ …
 *     entry:                    │ kind u16 … │ header bytes u32 │ bytes u64 │ … minor u16, major u16, sm u32 … │ code │
 *
 * NVIDIA documents none of this; it is the layout that cuobjdump's lists agree with (CUDA 13.1). A file that has another is
 * one of which nothing is known.
 */
import { closeSync, openSync, readSync } from "node:fs";

/** Machine code runs on its own generation only; PTX is compiled by the driver, if the driver knows its version. */
export interface CudaCode {
  /** Architectures with machine code, as 10 × major + minor; `isExact`: it runs on this one alone (sm_120a). */
  readonly machine: readonly { readonly architecture: number; readonly isExact: boolean }[];
  readonly ptx: readonly { readonly architecture: number; readonly major: number; readonly minor: number }[];
  /** The CUDA whose run-time library it needs; undefined: it does not say. */
  readonly runtime: number | undefined;
}

const fatBinaryMagic = 0xba55ed50;
const ptxKind = 1;
const machineKind = 2;
const entryBytes = 48;
/** Flag of an entry whose code was made for one architecture's own instructions. */
const exactFlag = 0x10_0000;
/** More than anybody's library has. */
const mostBinaries = 100_000;

/** @returns undefined when the file cannot be read, or has no such code. */
export function cudaCodeIn(path: string): CudaCode | undefined {
  let file: number | undefined;
  try {
    file = openSync(path, "r");
    const read = readerOf(file);
    const sections = sectionsOf(read);
    const fat = sections.get(".nv_fatbin");
    const strings = sections.get(".dynstr");
    if (fat === undefined) return undefined;
    const names =
      strings === undefined ? "" : read(strings.offset, Math.min(strings.bytes, 2 ** 24)).toString("latin1");
    const runtime = /libcudart\.so\.(\d+)/.exec(names)?.[1];
    return { ...entriesOf(read, fat), runtime: runtime === undefined ? undefined : Number(runtime) };
  } catch {
    return undefined; // too short, or no ELF: it only explains what is known to have failed
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

type Read = (offset: number, bytes: number) => Buffer;
interface Section {
  readonly offset: number;
  readonly bytes: number;
}

function readerOf(file: number): Read {
  return (offset, bytes) => {
    const buffer = Buffer.alloc(bytes);
    if (readSync(file, buffer, 0, bytes, offset) < bytes) throw new Error("the file is shorter than it says");
    return buffer;
  };
}

/** Sections of a 64-bit little-endian ELF file, by name. */
function sectionsOf(read: Read): Map<string, Section> {
  const header = read(0, 64);
  if (header.readUInt32BE(0) !== 0x7f45_4c46 || header[4] !== 2 || header[5] !== 1)
    throw new Error("no 64-bit ELF file");
  const [at, size, count, names] = [
    Number(header.readBigUInt64LE(40)),
    header.readUInt16LE(58),
    header.readUInt16LE(60),
    header.readUInt16LE(62),
  ];
  const table = read(at, size * count);
  const section = (index: number): Section => ({
    offset: Number(table.readBigUInt64LE(index * size + 24)),
    bytes: Number(table.readBigUInt64LE(index * size + 32)),
  });
  const text = read(section(names).offset, section(names).bytes).toString("latin1");
  const nameAt = (offset: number) => text.slice(offset, text.indexOf("\0", offset));
  return new Map(
    Array.from({ length: count }, (_, index) => [nameAt(table.readUInt32LE(index * size)), section(index)]),
  );
}

function entriesOf(read: Read, { offset, bytes }: Section): Pick<CudaCode, "machine" | "ptx"> {
  const machine = new Map<number, CudaCode["machine"][number]>();
  const ptx = new Map<number, CudaCode["ptx"][number]>();
  let place = offset;
  for (let seen = 0; place + 16 <= offset + bytes && seen < mostBinaries; seen += 1) {
    const header = read(place, 16);
    if (header.readUInt32LE(0) !== fatBinaryMagic) {
      place += 8; // between two binaries
      continue;
    }
    let entry = place + header.readUInt16LE(6);
    const end = entry + Number(header.readBigUInt64LE(8));
    while (entry < end) {
      const facts = read(entry, entryBytes);
      const architecture = facts.readUInt32LE(28);
      const isExact = (facts.readUInt32LE(40) & exactFlag) !== 0;
      const [minor, major] = [facts.readUInt16LE(24), facts.readUInt16LE(26)];
      const kind = facts.readUInt16LE(0);
      if (kind === machineKind) machine.set(architecture, { architecture, isExact });
      if (kind === ptxKind) ptx.set(architecture, { architecture, major, minor });
      const head = facts.readUInt32LE(4);
      if (head < entryBytes) throw new Error("an entry without a head");
      entry += head + Number(facts.readBigUInt64LE(8));
    }
    place = end;
  }
  const byArchitecture = (a: { architecture: number }, b: { architecture: number }) => a.architecture - b.architecture;
  return { machine: [...machine.values()].toSorted(byArchitecture), ptx: [...ptx.values()].toSorted(byArchitecture) };
}
