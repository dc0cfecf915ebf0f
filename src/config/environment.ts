/**
 * Settings from `REPRISE_…` variables of the environment. Not all of them are ours: Kubernetes puts some for every Service of the namespace into every pod
 * (`enableServiceLinks`), and for one named `reprise` or `reprise-cache` they begin as settings do. Those are left alone, and
 * what else is no setting is told and not obeyed: a variable that somebody else set must not keep a server from starting.
 */
export const variablePrefix = "REPRISE_";
/** Whoever runs our tests sets these; the commands that they start get them as well. */
const testPrefix = "REPRISE_TEST_";
/** In one warning. */
const mostNames = 20;

export interface Variables {
  /** Those that are settings, as they were set. */
  readonly known: ReadonlyMap<string, string>;
  /** Those that look like ours and are not. */
  readonly unknown: readonly string[];
}

export function readVariables(
  environment: Readonly<Record<string, string | undefined>>,
  isSetting: (variable: string) => boolean,
): Variables {
  const known = new Map<string, string>();
  const unknown: string[] = [];
  for (const [variable, value] of Object.entries(environment)) {
    if (!variable.startsWith(variablePrefix) || value === undefined || isServiceLink(variable, value)) continue;
    if (isSetting(variable)) known.set(variable, value);
    else if (!variable.startsWith(testPrefix)) unknown.push(variable);
  }
  return { known, unknown };
}

/**
 * Whether a variable has the shape of those that Kubernetes makes for a Service: `NAME_SERVICE_HOST`, `NAME_SERVICE_PORT`,
 * `NAME_SERVICE_PORT_PORTNAME`, `NAME_PORT=tcp://…`, `NAME_PORT_80_TCP=tcp://…` and `NAME_PORT_80_TCP_PROTO|PORT|ADDR`.
 * `REPRISE_PORT` and `REPRISE_METRICS_PORT` are settings too, and told apart by their values.
 */
export function isServiceLink(variable: string, value: string): boolean {
  return (
    /_SERVICE_(?:HOST|PORT(?:_\w+)?)$/.test(variable) ||
    /_PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?$/.test(variable) ||
    (variable.endsWith("_PORT") && /^(?:tcp|udp|sctp):\/\//.test(value))
  );
}

/** One line about variables that are no settings. @param hint what may follow a name, such as what was meant by it */
export function unknownWarning(unknown: readonly string[], hint: (variable: string) => string): string {
  const shown = unknown.slice(0, mostNames).map((name) => `${name.replaceAll(/[^\x20-\x7e]/g, "?")}${hint(name)}`);
  const rest = unknown.length > mostNames ? ` and ${unknown.length - mostNames} more` : "";
  return `${shown.join(", ")}${rest}: ${unknown.length === 1 ? "no such setting" : "no such settings"}, left alone`;
}
