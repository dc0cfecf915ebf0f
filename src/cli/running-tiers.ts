/**
 * The shared tiers of a running cache, for people: how each is, what it has done, and where it is. A cache of another version may say
 * less, and what it says comes from stores: it is shown as far as it is what it should be.
 */
import { textTable } from "../bench/text-table.ts";
import { formatBytes } from "../bytes.ts";
import { printable } from "../printable.ts";

type Fields = Readonly<Record<string, unknown>>;

/** @param stats as the cache gives them @returns "" when it has no shared tiers */
export function runningTiers(stats: Fields): string {
  const tiers = Object.entries(fieldsOf(stats["tiers"])).filter(([name]) => name !== "disk");
  if (tiers.length === 0) return "";
  const head = [
    "shared tier",
    "state",
    "found",
    "asked",
    "read",
    "written",
    "answers in",
    "reads in",
    "reads at",
    "failed",
  ];
  const rows = tiers.map(([name, tier]) => rowOf(name, fieldsOf(tier)));
  const notes = tiers.flatMap(([name, tier]) => notesOf(fieldsOf(tier)).map((note) => `${printable(name)}: ${note}\n`));
  return `${textTable(head, rows, 2)}${notes.join("")}`;
}

function rowOf(name: string, tier: Fields): string[] {
  const [lookups, state] = [fieldsOf(tier["lookups"]), fieldsOf(tier["state"])];
  const asked = ["found", "nothing", "late", "failed"].reduce((sum, outcome) => sum + numberOf(lookups[outcome]), 0);
  const latencyMs = numberOf(tier["readLatencyMs"]);
  const rate = numberOf(tier["readBytesPerSecond"]);
  return [
    printable(name),
    `${textOf(state["is"]) || "?"} for ${age(numberOf(state["forSeconds"]))}`,
    numberOf(lookups["found"]).toLocaleString("en"),
    asked.toLocaleString("en"),
    formatBytes(numberOf(tier["readBytes"])),
    formatBytes(numberOf(tier["writtenBytes"])),
    asked === 0 ? "-" : milliseconds((1000 * numberOf(tier["lookupSeconds"])) / asked),
    latencyMs === 0 ? "-" : milliseconds(latencyMs),
    rate === 0 ? "-" : `${formatBytes(rate)}/s`,
    numberOf(tier["failures"]).toLocaleString("en"),
  ];
}

/** Where it is, what is particular to it, and what went wrong. */
function notesOf(tier: Fields): string[] {
  const hosts = Object.entries(fieldsOf(tier["hosts"])).map(([host, is]) => printable(`${host} ${textOf(is)}`));
  const where = hosts.length > 0 ? hosts.join(", ") : textOf(tier["where"]);
  const quota = fieldsOf(tier["quota"]);
  const [limit, used] = [quota["limitBytes"], quota["usedBytes"]];
  const requests = Object.entries(fieldsOf(tier["requests"])).map(([kind, count]) =>
    printable(`${numberOf(count)} ${kind}`),
  );
  const error = fieldsOf(fieldsOf(tier["state"])["lastError"]);
  const [refused, corrupt] = [numberOf(tier["refusedWrites"]), numberOf(tier["corruptRecords"])];
  const odd = [
    ...(refused > 0 ? [`${refused.toLocaleString("en")} writes refused`] : []),
    ...(corrupt > 0 ? [`${corrupt.toLocaleString("en")} corrupt records`] : []),
  ];
  return [
    ...(where === "" ? [] : [where]),
    ...(typeof limit === "number"
      ? [`quota ${formatBytes(limit)}${typeof used === "number" ? `, ${formatBytes(used)} used` : ""}`]
      : []),
    ...(requests.length > 0 ? [`requests: ${requests.join(", ")}`] : []),
    ...(odd.length > 0 ? [odd.join(", ")] : []),
    ...(textOf(error["message"]) === ""
      ? []
      : [`last error, ${age(numberOf(error["agoSeconds"]))} ago: ${textOf(error["message"])}`]),
  ];
}

export function age(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 120) return `${whole} s`;
  if (whole < 7200) return `${Math.round(whole / 60)} min`;
  return whole < 172_800 ? `${Math.round(whole / 3600)} h` : `${Math.round(whole / 86_400)} d`;
}

function milliseconds(value: number): string {
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

function fieldsOf(value: unknown): Fields {
  return typeof value === "object" && value !== null ? (value as Fields) : {}; // an object's own, whatever they are
}

function numberOf(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function textOf(value: unknown): string {
  return typeof value === "string" ? printable(value) : "";
}
