/**
 * What is wrong with an address, in a sentence that says what to do. The client that uses a store tells only that it has none, and some
 * mistakes it does not see: of a database that there is not it takes the first one.
 *
 *     our first commands ──► "-…"                    the server says what is wrong: explained
 *                       ──► anything of the protocol  nothing is wrong
 *                       ──► anything else, or nothing  asked again with TLS, or without: is it that?
 */
import { connect as connectPlain, isIP, type Socket } from "node:net";
import { connect as connectSecure } from "node:tls";
import { atDeadline } from "../../deadline.ts";
import { describe } from "../../errors.ts";
import type { ValkeyAddress } from "./address.ts";
import type { Node } from "./bulk-connection.ts";

/** Of one conversation: a server that is there answers sooner. */
const patienceMs = 1500;
/** What more a server says is not listened to. */
const mostText = 16 * 1024;
/** As many names as make sure that another node of a cluster has one of them. */
const namesTried = 8;

/** Node's codes of certificates that it does not take, and OpenSSL's of a server that wants ours. */
const certificateFault = /^(?:CERT_|ERR_TLS_CERT|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|ERR_SSL_.*CERTIFICATE_REQUIRED)/;

type How = "plain" | "secure" | "secure, whoever it is";

/**
 * @param isUsed a client uses it already: only what the server itself says counts, since one that is busy says it late
 * @returns undefined: nothing, as far as can be seen from here
 */
export async function whatIsWrong(
  address: ValkeyAddress,
  node: Node,
  { isUsed }: { readonly isUsed: boolean },
): Promise<string | undefined> {
  const { tls } = address;
  const how = tls === undefined ? "plain" : "secure";
  const heard = await talk(node, { how, tls, commands: commandsFor(address) });
  if (heard.lines.some(isOfProtocol)) {
    const fault = heard.lines.find((line) => line.startsWith("-"))?.slice(1);
    const isUnknown = address.kind === "sentinel" && isNothing(heard.lines[0]!); // one was of the protocol
    return fault === undefined ? (isUnknown ? unknownPrimary(address) : undefined) : explained(fault, address);
  }
  if (isUsed) return undefined;
  if (heard.fault !== undefined && heard.saysWhy) return explained(heard.fault, address);
  const other = await talk(node, {
    how: tls === undefined ? "secure, whoever it is" : "plain",
    tls,
    commands: [["PING"]],
  });
  if (tls === undefined && other.isConnected) return "it speaks TLS there: take valkeys:// in place of valkey://";
  if (tls !== undefined && other.lines.some(isOfProtocol))
    return "it does not speak TLS there: take valkey:// in place of valkeys://, or the port that its tls-port names";
  const said = [...heard.lines, ...other.lines].find((line) => line !== "");
  if (said?.startsWith("HTTP/") === true) return "an HTTP server answers there, no Valkey: check host and port";
  if (said !== undefined) return "what answers there does not speak the Redis protocol: check host and port";
  if (!heard.isConnected && !other.isConnected) return "nobody answers there: check host, port and what lies between";
  return "it takes connections and says nothing: check host and port";
}

/** What a server, the system or the client says, with what to do. */
export function explained(text: string, { kind, db, primary, hosts }: ValkeyAddress): string {
  const there = `${hosts[0]!.host}:${hosts[0]!.port}`; // one at least
  const meanings: readonly (readonly [RegExp, string])[] = [
    [/^NOAUTH/, "it asks for a password: give it in the address, or with password-file"],
    [/^WRONGPASS|^ERR invalid password/, "it does not know this user with this password"],
    [/without any password configured/, "it has no password, and the address does: leave it out"],
    [/DB index is out of range/, `it has no database ${db}: there are as many as its setting "databases" says`],
    [
      /SELECT is not allowed in cluster mode/,
      `it is a cluster, which has no databases: take valkey+cluster://${there}`,
    ],
    ...(kind === "one" ? ([[/^MOVED /, `it is one node of a cluster: take valkey+cluster://${there}`]] as const) : []),
    [/cluster support disabled/i, `it is no cluster: take valkey://${there}`],
    [/unknown command.*sentinel/i, `it is no sentinel: take valkey://${there}, or the sentinels' port`],
    [
      /unknown command.*\b(?:get|getrange|select|set)\b/i,
      `it is a sentinel: take valkey+sentinel://${there}/NAME of the primary`,
    ],
    [/^Stream isn't writeable/, "its connection was lost"],
    [/No such master/, unknownPrimary({ primary })],
    [
      /self.signed certificate|unable to (?:verify|get)/i,
      "nobody known here has signed its certificate: name the one who has with ca=FILE",
    ],
    [
      /certificate required/i,
      "it asks for a certificate of ours, which there is no setting for: set tls-auth-clients to no there",
    ],
  ];
  const meaning = meanings.find(([pattern]) => pattern.test(text))?.[1];
  return meaning === undefined ? text : `${meaning} (${text.slice(0, 120)})`;
}

function commandsFor({ kind, db, username, password, primary, prefix }: ValkeyAddress): string[][] {
  if (kind === "sentinel") return [["SENTINEL", "get-master-addr-by-name", primary]];
  const login = password === undefined ? [] : [["AUTH", ...(username === undefined ? [] : [username]), password]];
  if (kind === "cluster") return [...login, ["CLUSTER", "SLOTS"]];
  const names = Array.from({ length: namesTried }, (_, i) => `${prefix}first-look:${i}`);
  return [...login, ...(db === 0 ? [] : [["SELECT", String(db)]]), ...names.map((name) => ["GET", name])];
}

interface Heard {
  readonly lines: readonly string[];
  readonly isConnected: boolean;
  /** What ended it. */
  readonly fault: string | undefined;
  /** The fault is not to be looked into: nobody is there, or his certificate is not to be believed. */
  readonly saysWhy: boolean;
}

/** Says all commands at once, and hears the first lines of what is answered. */
function talk(
  { host, port }: Node,
  { how, tls, commands }: { how: How; tls: ValkeyAddress["tls"]; commands: readonly (readonly string[])[] },
): Promise<Heard> {
  return new Promise((resolve) => {
    let [text, isConnected] = ["", false];
    const end = (error?: NodeJS.ErrnoException) => {
      deadline.cancel();
      socket.destroy();
      const lines = text.split("\r\n");
      const { code = "", syscall = "" } = error ?? {};
      const saysWhy = ["connect", "getaddrinfo"].includes(syscall) || certificateFault.test(code);
      resolve({ lines, isConnected, fault: error && describe(error), saysWhy });
    };
    let deadline = atDeadline(patienceMs, () => end());
    const onOpen = () => {
      isConnected = true;
      deadline.cancel();
      deadline = atDeadline(patienceMs, () => end());
      socket.write(commands.map(encoded).join(""));
    };
    const socket = opened({ host, port }, { how, tls, onOpen });
    socket.on("error", end).on("close", () => end());
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      if (text.length > mostText || text.split("\r\n").length > commands.length || /(?:^|\n)-.*\r\n/.test(text)) end();
    });
  });
}

function opened(node: Node, { how, tls, onOpen }: { how: How; tls: ValkeyAddress["tls"]; onOpen: () => void }): Socket {
  if (how === "plain") return connectPlain(node, onOpen);
  const name = isIP(node.host) === 0 ? { servername: node.host } : {};
  const checked = how === "secure" ? { ...(tls?.ca && { ca: tls.ca }) } : { rejectUnauthorized: false }; // nothing is said to it that counts
  return connectSecure({ ...node, ...name, ...checked }, onOpen);
}

function encoded(words: readonly string[]): string {
  return `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(word)}\r\n${word}\r\n`).join("")}`;
}

function isNothing(line: string): boolean {
  return /^(?:[*$]-1|_)$/.test(line);
}

function unknownPrimary({ primary }: { readonly primary: string }): string {
  return `its sentinels know no primary with the name "${primary}"`;
}

function isOfProtocol(line: string): boolean {
  return /^(?:[+-][A-Z]|\$-?\d+$|\*-?\d+$|:\d+$|_$)/.test(line);
}
