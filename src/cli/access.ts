/** Who may reach a listener of ours, and with which keys: the rules that every command with an HTTP port keeps. */
import { type Config, flagName } from "../config.ts";
import { readKeyFile } from "../config/keys.ts";
import { describe, RepriseError } from "../errors.ts";
import { loopbackHosts } from "../http/shell.ts";
import { isLoopback } from "../loopback.ts";

/** Of both kinds together: every request is compared with each. */
const mostKeys = 1000;

export interface Keys {
  /** Each is a tenant. */
  readonly apiKeys: readonly string[];
  /** For what concerns all tenants. */
  readonly adminKeys: readonly string[];
}

/**
 * The keys that were typed and those in files; one that is given twice counts once.
 *
 * @throws RepriseError BAD_CONFIG listing every fault
 */
export function readKeys(config: Pick<Config, "apiKey" | "apiKeyFile" | "adminKey" | "adminKeyFile">): Keys {
  const faults: string[] = [];
  const keysOf = (typed: readonly string[], files: readonly string[], flag: string) => {
    const inFiles = files.flatMap((path) => {
      try {
        return readKeyFile(path);
      } catch (error) {
        faults.push(
          ...describe(error)
            .split("\n")
            .map((fault) => `--${flag} ${path}: ${fault}`),
        );
        return [];
      }
    });
    return [...new Set([...typed, ...inFiles])];
  };
  const apiKeys = keysOf(config.apiKey, config.apiKeyFile, flagName("apiKeyFile"));
  const adminKeys = keysOf(config.adminKey, config.adminKeyFile, flagName("adminKeyFile"));
  if (adminKeys.some((key) => apiKeys.includes(key)))
    faults.push("a key is given both as an API key and as an admin key: a tenant would see all the others; make two");
  if (apiKeys.length + adminKeys.length > mostKeys)
    faults.push(`${apiKeys.length + adminKeys.length} keys are given; ${mostKeys} is the most`);
  if (faults.length > 0) throw new RepriseError("BAD_CONFIG", faults.join("\n"));
  return { apiKeys, adminKeys };
}

/**
 * @param keys those without which the listener answers to everybody
 * @param flag how to give one
 * @throws RepriseError BAD_CONFIG when strangers could reach the listener and no key is asked for
 */
export function mustBePrivate(host: string, keys: readonly string[], flag: "api-key" | "admin-key"): void {
  if (isLoopback(host) || keys.length > 0) return;
  throw new RepriseError(
    "BAD_CONFIG",
    `--host ${host} can be reached from other machines: give at least one key by --${flag}-file or --${flag}, or keep to 127.0.0.1`,
  );
}

/** @throws RepriseError BAD_CONFIG when all web pages could call the server and no key is asked for. */
export function mustKnowPages(origins: readonly string[], keys: readonly string[]): void {
  if (!origins.includes("*") || keys.length > 0) return;
  throw new RepriseError(
    "BAD_CONFIG",
    "--cors-origin * lets every page that a browser shows call the server: give at least one key by --api-key-file or --api-key, or name the origins",
  );
}

/** On loopback without keys only loopback's own names and those given are answered to, so that no page can point its name at us. */
export function hostsAllowedBy(
  { host, allowedHost }: Pick<Config, "host" | "allowedHost">,
  keys: readonly string[],
): { readonly allowedHosts?: readonly string[] } {
  if (!isLoopback(host) || keys.length > 0) return {};
  return { allowedHosts: [...loopbackHosts, host, ...allowedHost] };
}
