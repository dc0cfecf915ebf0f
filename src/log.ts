/**
 * One line per event on stderr: `12:04:31 warn  disk tier: …`. A server's stdout carries only what a program may read
 * (the ready line, JSON of commands).
 */
export type LogLevel = "debug" | "info" | "warn" | "error";

export interface Log {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
  /** The same log with a prefix that names the part that speaks. */
  named(part: string): Log;
}

const order: readonly LogLevel[] = ["debug", "info", "warn", "error"];

export function createLog(options: { level: LogLevel; write?: (line: string) => void; part?: string }): Log {
  const write = options.write ?? ((line: string) => process.stderr.write(line));
  const lowest = order.indexOf(options.level);
  const at = (level: LogLevel) => (message: string) => {
    if (order.indexOf(level) < lowest) return;
    const time = new Date().toISOString().slice(11, 19);
    const part = options.part === undefined ? "" : `${options.part}: `;
    write(`${time} ${level.padEnd(5)} ${part}${message}\n`);
  };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    named: (part) => createLog({ ...options, part: options.part === undefined ? part : `${options.part} ${part}` }),
  };
}

/** A log that says nothing, for tests and for library use. */
export const silentLog: Log = createLog({ level: "error", write: () => {} });
