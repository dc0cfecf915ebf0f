/** Who may reach a listener of ours: the rules that every command with an HTTP port keeps. */
import type { Config } from "../config.ts";
import { RepriseError } from "../errors.ts";
import { loopbackHosts } from "../http/shell.ts";

/** @throws RepriseError BAD_CONFIG when strangers could reach the listener and no key is asked for. */
export function mustBePrivate(config: Pick<Config, "host" | "apiKey">): void {
  if (isLoopback(config.host) || config.apiKey.length > 0) return;
  throw new RepriseError(
    "BAD_CONFIG",
    `--host ${config.host} can be reached from other machines: give at least one --api-key, or keep to 127.0.0.1`,
  );
}

/** On loopback without keys only loopback's own names are answered to, so that no page can point its name at us. */
export function hostsAllowedBy(config: Pick<Config, "host" | "apiKey">): { readonly allowedHosts?: readonly string[] } {
  return isLoopback(config.host) && config.apiKey.length === 0 ? { allowedHosts: loopbackHosts } : {};
}

function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || /^127\.\d+\.\d+\.\d+$/.test(host);
}
