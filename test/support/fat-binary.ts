/** Files like CUDA libraries: code for GPUs that is none, in an ELF file without anything else. */
export interface FakeCode {
  readonly kind: "machine" | "ptx";
  readonly architecture: number;
  /** PTX's version. */
  readonly version?: readonly [major: number, minor: number];
  readonly isExact?: boolean;
}

/** What `.nv_fatbin` holds: two fat binaries with the same code, and a gap between them. */
export function fatBinary(codes: readonly FakeCode[]): Buffer {
  const entries = Buffer.concat(
    codes.map(({ kind, architecture, version: [major, minor] = [1, 8], isExact = false }) => {
      const code = Buffer.alloc(40, 0xee);
      const head = Buffer.alloc(64);
      head.writeUInt16LE(kind === "ptx" ? 1 : 2, 0);
      head.writeUInt32LE(head.length, 4);
      head.writeBigUInt64LE(BigInt(code.length), 8);
      head.writeUInt16LE(minor, 24);
      head.writeUInt16LE(major, 26);
      head.writeUInt32LE(architecture, 28);
      head.writeUInt32LE(isExact ? 0x110_8011 : 0x8011, 40);
      return Buffer.concat([head, code]);
    }),
  );
  const head = Buffer.alloc(16);
  head.writeUInt32LE(0xba55ed50, 0);
  head.writeUInt16LE(1, 4);
  head.writeUInt16LE(16, 6);
  head.writeBigUInt64LE(BigInt(entries.length), 8);
  return Buffer.concat([head, entries, Buffer.alloc(8), head, entries]);
}

/** An ELF file with these sections. */
export function elfFile(sections: Readonly<Record<string, Buffer>>): Buffer {
  const names = ["", ...Object.keys(sections), ".shstrtab"];
  const text = Buffer.from(names.map((name) => `${name}\0`).join(""), "latin1");
  const contents = [Buffer.alloc(0), ...Object.values(sections), text];
  const headers = contents.map((content, index) => {
    const header = Buffer.alloc(64);
    header.writeUInt32LE(text.indexOf(`${names[index]}\0`), 0);
    const before = contents.slice(0, index).reduce((sum, each) => sum + each.length, 0);
    header.writeBigUInt64LE(BigInt(64 + before), 24);
    header.writeBigUInt64LE(BigInt(content.length), 32);
    return header;
  });
  const head = Buffer.alloc(64);
  head.write("\x7fELF\x02\x01\x01", "latin1");
  head.writeBigUInt64LE(BigInt(64 + contents.reduce((sum, each) => sum + each.length, 0)), 40);
  head.writeUInt16LE(64, 58);
  head.writeUInt16LE(headers.length, 60);
  head.writeUInt16LE(headers.length - 1, 62);
  return Buffer.concat([head, ...contents, ...headers]);
}
