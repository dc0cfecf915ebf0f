/**
 * How the text of a setting becomes its value. Every `parse` throws an Error whose message says what is wrong; none of them
 * takes an empty or odd text for something laxer than what was meant.
 */
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";
import { formatBytes, parseBytes } from "../bytes.ts";
import { parseHostName, parseOrigin } from "./origins.ts";
import { checkKey } from "./keys.ts";

export interface Kind<T> {
  readonly name: string;
  readonly list?: true;
  /** A flag without a value. */
  readonly isSwitch?: true;
  parse(text: string): T;
}

/** A path. `~/` is the home directory, as a shell has it: in a file, in the environment and behind a `=` there is no shell. */
export function path(name: string): Kind<string> {
  return { name, parse: (given) => withHome(checkText(given)) };
}

export function paths(name: string): Kind<readonly string[]> {
  return { name, list: true, parse: (given) => [withHome(checkText(given))] };
}

/** Texts that whoever reads the setting parses. */
export function list(name: string): Kind<readonly string[]> {
  return { name, list: true, parse: (given) => [checkText(given)] };
}

/** A key that is typed: its text is in no message. */
export function key(name: string): Kind<readonly string[]> {
  return {
    name,
    list: true,
    parse(given) {
      checkKey(given);
      return [given];
    },
  };
}

/** A name or address of this machine, as a listener takes it. */
export function address(): Kind<string> {
  return {
    name: "ADDRESS",
    parse(given) {
      if (/^[\w.:%-]+$/.test(given)) return given;
      throw new Error(`"${given}" is no address or name to listen on, such as 127.0.0.1, ::1 or localhost`);
    },
  };
}

/** `ADDRESS:PORT`; an IPv6 address has brackets around it. */
export function listenAddress(): Kind<string> {
  return {
    name: "ADDRESS:PORT",
    parse(given) {
      const [, port] = /^(?:\[[\da-fA-F:%.]+\]|[\w.-]+):(\d{1,5})$/.exec(given) ?? [];
      if (Number(port) <= 65_535) return given;
      throw new Error(`"${given}" is no address and port to listen on, such as 0.0.0.0:7000 or [::1]:7000`);
    },
  };
}

/** An origin as browsers send it, since it is compared with that, or `*`. */
export function origin(): Kind<readonly string[]> {
  return { name: "ORIGIN", list: true, parse: (given) => [parseOrigin(given)] };
}

/** A host as clients ask for it. */
export function hostName(): Kind<readonly string[]> {
  return { name: "NAME", list: true, parse: (given) => [parseHostName(given)] };
}

export function integer(name: string, least: number, most: number): Kind<number> {
  return {
    name,
    parse(given) {
      const value = /^\d+$/.test(given) ? Number(given) : Number.NaN;
      if (!(value >= least && value <= most))
        throw new Error(`"${given}" is not a whole number from ${least} to ${most}`);
      return value;
    },
  };
}

/** A size; `least` is the smallest that works, and 0 is allowed where it turns something off. */
export function bytes(options: { least: number; orZero?: true }): Kind<number> {
  return {
    name: "SIZE",
    parse(given) {
      const value = parseBytes(given);
      if (value >= options.least || (value === 0 && options.orZero)) return value;
      throw new Error(`"${given}" is less than ${formatBytes(options.least)}, the smallest that works`);
    },
  };
}

/** Where the disk tier may keep how much. */
export interface DiskSetting {
  /** The data directory's own when undefined. */
  readonly directory: string | undefined;
  readonly bytes: number;
}

/** `20GiB` or `/mnt/nvme1:1TiB`; the size follows the last colon. */
export function drives(options: { least: number }): Kind<readonly DiskSetting[]> {
  const size = bytes({ ...options, orZero: true });
  return {
    name: "SIZE or DIR:SIZE",
    list: true,
    parse(given) {
      const colon = given.lastIndexOf(":");
      if (colon === 0) throw new Error(`"${given}" names no directory before its colon`);
      const directory = colon === -1 ? undefined : withHome(checkText(given.slice(0, colon)));
      return [{ directory, bytes: size.parse(given.slice(colon + 1)) }];
    },
  };
}

export function oneOf<Choice extends string>(...choices: readonly Choice[]): Kind<Choice> {
  return {
    name: choices.join("|"),
    parse(given) {
      const choice = choices.find((each) => each === given);
      if (choice === undefined) throw new Error(`"${given}" is none of ${choices.join(", ")}`);
      return choice;
    },
  };
}

export function onOff(): Kind<boolean> {
  return {
    name: "",
    isSwitch: true,
    parse(given) {
      if (given === "true" || given === "1") return true;
      if (given === "false" || given === "0") return false;
      throw new Error(`"${given}" is neither true nor false`);
    },
  };
}

function withHome(given: string): string {
  if (!given.startsWith("~")) return given;
  if (given !== "~" && !given.startsWith("~/"))
    throw new Error(`"${given}": of ~ only ~/ is known, your own home; write ./${given} for a file of that name`);
  return join(home(), given.slice(1));
}

/** A user without one, as containers have them, gives the paths: none can be made in the root directory. */
export function home(): string {
  try {
    const folder = homedir();
    return isAbsolute(folder) ? folder : "/"; // HOME may be empty
  } catch {
    return "/";
  }
}

function checkText(given: string): string {
  if (given.trim() === "") throw new Error("must not be empty");
  // oxlint-disable-next-line no-control-regex
  if (/[\u0000-\u001f\u007f]/.test(given)) throw new Error("must not have line ends or other control characters");
  return given;
}
