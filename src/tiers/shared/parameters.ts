/** What stores may be told behind the question mark of their address, where it is the same for several of them. */
import { readFileSync } from "node:fs";
import { parseBytes } from "../../bytes.ts";
import { describe } from "../../errors.ts";

/** Makes the error of one kind of store from what is wrong. */
type Fault = (why: string) => Error;

/** The certificate that signed the store's. */
export function certificateIn(path: string, fault: Fault): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fault(`ca ${path} cannot be read: ${describe(error)}`);
  }
}

export function sizeOf(name: string, text: string | undefined, fault: Fault): number | undefined {
  if (text === undefined) return undefined;
  try {
    return parseBytes(text);
  } catch (error) {
    throw fault(`${name}: ${describe(error)}`);
  }
}

export function connectionsOf(text: string, most: number, fault: Fault): number {
  const digits = new RegExp(`^\\d{1,${String(most).length}}$`);
  if (digits.test(text) && Number(text) >= 1 && Number(text) <= most) return Number(text);
  throw fault(`connections "${text}" is not a whole number from 1 to ${most}`);
}
