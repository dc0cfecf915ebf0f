/** Ctrl-C and SIGTERM: the first asks for an orderly end, the second ends at once. */
import { constants } from "node:os";
import type { Log } from "../log.ts";

/** Resolves at the first SIGINT, SIGTERM or SIGHUP. */
export function endRequested(log: Log): Promise<"ended"> {
  return new Promise((resolve) => {
    let asked = false;
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.on(signal, () => {
        if (asked) process.exit(128 + constants.signals[signal]);
        asked = true;
        log.info(
          `${signal}: closing; running answers may finish, and what is not saved yet is written (a second signal ends at once)`,
        );
        resolve("ended");
      });
    }
  });
}
