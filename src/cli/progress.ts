/** A progress bar on a terminal; nothing where stderr is a file or a pipe. */
import { SingleBar } from "cli-progress";

export interface Progress {
  /** @param share of the work that is done, 0 to 1. @param step what is being done; the title until one is told. */
  update(share: number, step?: string): void;
  end(): void;
}

export function showProgress(title: string): Progress {
  if (!process.stderr.isTTY) return { update() {}, end() {} };
  const bar = new SingleBar({
    format: "{step} {bar} {percentage} %",
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  bar.start(100, 0, { step: title });
  return {
    update: (share, step) => bar.update(Math.round(share * 100), step === undefined ? {} : { step }),
    end: () => bar.stop(),
  };
}
