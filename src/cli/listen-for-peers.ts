/** `--listen` and what belongs to it: who may read from this cache, and where. */
import { readFileSync } from "node:fs";
import type { Cache } from "../cache/cache.ts";
import type { Config } from "../config.ts";
import { describe, RepriseError } from "../errors.ts";
import type { Log } from "../log.ts";
import { isLoopback } from "../loopback.ts";
import { readPrivateFile } from "../private-files.ts";
import { readToken } from "../peers/token-file.ts";
import { PeerServer, type PeerServerOptions } from "../peers/serving/peer-server.ts";

export type ListenSetting = "listen" | "listenCert" | "listenKey" | "listenCompress" | "tokenFile";
export type Listening = Pick<PeerServerOptions, "host" | "port" | "tls" | "token" | "compress">;

const maxFileBytes = 1024 * 1024;

/**
 * All that `--listen` needs, read before anything is opened; undefined when nobody is to be listened to.
 *
 * @throws RepriseError BAD_CONFIG when strangers could read, or a file is not as it must be
 */
export function readListening({
  listen = "",
  listenCert = "",
  listenKey = "",
  listenCompress = "lossless",
  tokenFile = "",
}: Partial<Pick<Config, ListenSetting>>): Listening | undefined {
  if (listen === "") {
    if (listenCert + listenKey + tokenFile === "" && listenCompress === "lossless") return undefined;
    throw fault(
      "--listen-cert, --listen-key, --listen-compress and --token-file are for --listen: say where to listen, too",
    );
  }
  const colon = listen.lastIndexOf(":"); // the kind has one
  const host = listen.slice(0, colon).replace(/^\[|\]$/g, "");
  if ((listenCert === "") !== (listenKey === "")) throw fault("--listen-cert and --listen-key are given together");
  if (!isLoopback(host) && (listenCert === "" || tokenFile === ""))
    throw fault(
      `--listen ${listen} can be reached from other machines: give --listen-cert, --listen-key and --token-file, or keep to 127.0.0.1`,
    );
  return {
    host,
    port: Number(listen.slice(colon + 1)),
    tls: listenCert === "" ? undefined : { cert: certificate(listenCert), key: privateKey(listenKey) },
    compress: listenCompress,
    token: tokenFile === "" ? undefined : readToken(tokenFile, "--token-file"),
  };
}

/** @throws RepriseError ADDRESS_IN_USE, BAD_CONFIG */
export function listenForPeers(
  listening: Listening | undefined,
  cache: Cache,
  log: Log,
): Promise<PeerServer | undefined> {
  if (listening === undefined) return Promise.resolve(undefined);
  return PeerServer.listen({ ...listening, cache, log: log.named("hosts") });
}

function certificate(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw fault(`--listen-cert ${path} cannot be read: ${describe(error)}`);
  }
}

function privateKey(path: string): Buffer {
  try {
    const found = readPrivateFile(path, maxFileBytes);
    if (found instanceof Uint8Array) return found;
    throw new Error(
      found === "absent" ? "there is no such file" : `it ${found.foreign}; it must be yours alone (chmod 600)`,
    );
  } catch (error) {
    throw fault(`--listen-key ${path}: ${describe(error)}`);
  }
}

function fault(why: string): RepriseError {
  return new RepriseError("BAD_CONFIG", why);
}
