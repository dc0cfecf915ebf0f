/** A progress bar on a terminal; nothing where stderr is a file or a pipe. */
import { SingleBar } from "cli-progress";

export interface Progress extends Disposable {
  /** @param share of the work that is done, 0 to 1. */
  update(share: number): void;
  /** Takes the bar away, and gives the cursor back; a second call does nothing. */
  end(): void;
}

export function showProgress(title: string): Progress {
  if (!process.stderr.isTTY) return { update() {}, end() {}, [Symbol.dispose]() {} };
  const bar = new SingleBar({
    format: `${title} {bar} {percentage} %`,
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
  });
  bar.start(100, 0);
  return {
    update: (share) => bar.update(Math.round(share * 100)),
    end: () => bar.stop(),
    [Symbol.dispose]: () => bar.stop(),
  };
}
