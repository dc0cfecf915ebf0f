/**
 * MessagePack for the wire: msgpackr writes, a strict reader of our own reads.
 *
 * What a peer sends is not trusted, and a general reader does too much with it: msgpackr makes arrays as long as their
 * header claims and builds errors, sets and regular expressions from extension types. This one knows maps with string
 * keys, arrays, strings, binary, numbers, booleans and nil; nothing claims more than the frame's bytes can hold.
 * Integral numbers above 2^32 may travel as float64 (msgpackr writes them so).
 */
import { Packr, RESERVE_START_SPACE, RESET_BUFFER_MODE } from "msgpackr";
import { RepriseError } from "../errors.ts";

export type Value =
  | null
  | boolean
  | number
  | string
  | Uint8Array
  | readonly Value[]
  | { readonly [key: string]: Value };

const packr = new Packr({ useRecords: false, variableMapSize: true });
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }); // a BOM is a character like others;
const maxDepth = 6;

/**
 * Encodes behind `reservedBytes` that are the caller's to fill, in memory that every encoding uses again: valid until the
 * next one, unless {@link keepEncoded} is called before.
 */
export function encodeShared(value: unknown, reservedBytes: number): Buffer {
  return packr.pack(value, RESERVE_START_SPACE | RESET_BUFFER_MODE | reservedBytes);
}

/** Leaves what was encoded last to whoever has it: the next encoding takes other memory. */
export function keepEncoded(): void {
  packr.useBuffer(Buffer.allocUnsafeSlow(8192));
}

/** Reads one value that fills `bytes`. Binary values are views of `bytes`. @throws RepriseError PROTOCOL */
export function decodeValue(bytes: Uint8Array): Value {
  const reader = new Reader(bytes);
  const value = reader.value(0);
  if (reader.position !== bytes.length) throw malformed("bytes after the value");
  return value;
}

class Reader {
  position = 0;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  value(depth: number): Value {
    if (depth > maxDepth) throw malformed("nested too deep");
    const type = this.#unsigned(1);
    if (type <= 0x7f) return type;
    if (type <= 0x8f) return this.#map(type & 0x0f, depth);
    if (type <= 0x9f) return this.#array(type & 0x0f, depth);
    if (type <= 0xbf) return this.#string(type & 0x1f);
    if (type >= 0xe0) return type - 0x100;
    switch (type) {
      case 0xc0:
        return null;
      case 0xc2:
        return false;
      case 0xc3:
        return true;
      case 0xc4:
      case 0xc5:
      case 0xc6:
        return this.#take(this.#unsigned(1 << (type - 0xc4)));
      case 0xca:
        return this.#view.getFloat32(this.#skip(4));
      case 0xcb:
        return this.#view.getFloat64(this.#skip(8));
      case 0xcc:
      case 0xcd:
      case 0xce:
        return this.#unsigned(1 << (type - 0xcc));
      case 0xcf:
        return Number(this.#view.getBigUint64(this.#skip(8)));
      case 0xd0:
        return this.#view.getInt8(this.#skip(1));
      case 0xd1:
        return this.#view.getInt16(this.#skip(2));
      case 0xd2:
        return this.#view.getInt32(this.#skip(4));
      case 0xd3:
        return Number(this.#view.getBigInt64(this.#skip(8)));
      case 0xd9:
      case 0xda:
      case 0xdb:
        return this.#string(this.#unsigned(1 << (type - 0xd9)));
      case 0xdc:
      case 0xdd:
        return this.#array(this.#unsigned(2 << (type - 0xdc)), depth);
      case 0xde:
      case 0xdf:
        return this.#map(this.#unsigned(2 << (type - 0xde)), depth);
      default:
        throw malformed(`type 0x${type.toString(16)} is not used`);
    }
  }

  #array(length: number, depth: number): Value[] {
    if (length > this.#left) throw malformed("an array longer than its frame");
    const array: Value[] = [];
    for (let i = 0; i < length; i += 1) array.push(this.value(depth + 1));
    return array;
  }

  #map(length: number, depth: number): { [key: string]: Value } {
    if (2 * length > this.#left) throw malformed("a map longer than its frame");
    const map = Object.create(null) as { [key: string]: Value };
    for (let i = 0; i < length; i += 1) {
      const key = this.value(maxDepth);
      if (typeof key !== "string") throw malformed("a key that is not a string");
      if (key in map) throw malformed("a key twice");
      map[key] = this.value(depth + 1);
    }
    return map;
  }

  #string(length: number): string {
    try {
      return utf8.decode(this.#take(length));
    } catch (error) {
      throw error instanceof RepriseError ? error : malformed("a string that is not UTF-8");
    }
  }

  #take(length: number): Uint8Array {
    const start = this.#skip(length);
    return this.#bytes.subarray(start, start + length);
  }

  #unsigned(width: number): number {
    const at = this.#skip(width);
    if (width === 1) return this.#view.getUint8(at);
    return width === 2 ? this.#view.getUint16(at) : this.#view.getUint32(at);
  }

  #skip(length: number): number {
    if (length > this.#left) throw malformed("a value longer than its frame");
    const at = this.position;
    this.position += length;
    return at;
  }

  get #left(): number {
    return this.#bytes.length - this.position;
  }
}

function malformed(what: string): RepriseError {
  return new RepriseError("PROTOCOL", `a peer sent ${what}`);
}
