/** Names as browsers send them: the origin of a page, the host that was asked for. What no browser sends never matches. */

/** `*`, or an origin exactly as a browser writes it. @throws Error with what to write instead */
export function parseOrigin(given: string): string {
  if (given === "*") return given;
  const [, scheme = "", rest = ""] = /^([a-z][a-z0-9+.-]*):\/\/([^*]+)$/i.exec(given) ?? [];
  if (scheme === "") throw new Error(`"${given}" is no origin${withoutScheme(given)}`);
  const origin = /^https?$/i.test(scheme)
    ? hostOf(given)?.origin
    : `${scheme.toLowerCase()}://${rest.replace(/[/?#].*$/, "")}`; // of apps and extensions, which URL knows no origin of
  if (origin === given) return given;
  throw new Error(`"${given}" is not as browsers write an origin${instead(origin)}`);
}

/** A host's name or address, without scheme, port and path. @throws Error with what to write instead */
export function parseHostName(given: string): string {
  const host = given.includes("*") ? undefined : hostOf(given.includes("://") ? given : `http://${given}`);
  if (host?.hostname === given) return given;
  throw new Error(`"${given}" is not the name of one host${instead(host?.hostname)}`);
}

function hostOf(url: string): URL | undefined {
  return URL.canParse(url) ? new URL(url) : undefined;
}

function instead(meant: string | undefined): string {
  return meant === undefined || meant === "" ? "" : `; write "${meant}"`;
}

function withoutScheme(given: string): string {
  if (given === "null") return ": it is what all pages without one send";
  if (given.includes("*")) return ': patterns are not known; name each, or write "*" for all';
  const host = hostOf(`http://${given}`)?.host;
  return host === undefined ? "" : `: it has no scheme; write "http://${host}" or "https://${host}"`;
}
