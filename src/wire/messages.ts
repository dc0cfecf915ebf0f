/** A table of messages as a protocol: types, reading, writing and limits follow from each message's fields (kinds.ts). */
import { RepriseError } from "../errors.ts";
import { type FieldKinds, type Kind, oneOf, record, type Typed } from "./kinds.ts";
import { decodeValue } from "./msgpack.ts";

export type Messages<Table extends { readonly [type: string]: FieldKinds }> = {
  [Type in keyof Table]: { readonly type: Type } & Typed<Table[Type]>;
}[keyof Table];

export type MessageKinds = ReadonlyMap<unknown, Kind<object>>;

/** Each message as one kind, its type included. */
export function messageKinds(table: { readonly [type: string]: FieldKinds }): MessageKinds {
  return new Map(
    Object.entries(table).map(([type, fields]) => [type, record({ type: oneOf([type], "a type"), ...fields })]),
  );
}

/** @param what the message must be, for people: "a request" @throws RepriseError PROTOCOL unless every field is as it must be */
export function parseMessage(kinds: MessageKinds, body: Uint8Array, what: string): object {
  const value = decodeValue(body);
  if (typeof value !== "object" || value === null || !("type" in value))
    throw wrong("message is not a map with a type");
  const kind = kinds.get(value["type"]);
  if (kind === undefined) throw wrong(`type is not ${what}`);
  const fault = kind.fault("message", value);
  if (fault !== undefined) throw wrong(fault);
  return kind.read(value);
}

/** The message as it is encoded, and what is wrong with it. */
export function writeMessage(
  kinds: MessageKinds,
  message: { readonly type: string },
): { map: object; fault: string | undefined } {
  const kind = kinds.get(message.type)!; // the table's types name no others
  const map = kind.write(message) as object;
  return { map, fault: kind.fault("message", map) };
}

function wrong(fault: string): RepriseError {
  return new RepriseError("PROTOCOL", `a peer sent a message whose ${fault}`);
}
