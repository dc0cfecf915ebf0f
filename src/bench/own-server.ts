/** `reprise serve` of this installation as a server to measure: the shipped model, a free port, a data directory of its own. */
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { TargetOptions } from "./target.ts";

/** Only its place is known here: it is started as any other server is. */
const command = fileURLToPath(new URL("../cli/main.js", import.meta.url));

export class OwnServer implements Disposable {
  readonly target: TargetOptions;
  readonly #directory: string;

  private constructor(directory: string, target: TargetOptions) {
    this.#directory = directory;
    this.target = target;
  }

  /** Starts nothing yet. The data directory goes when this is disposed of. */
  static async prepare({ stallMs }: { stallMs: number }): Promise<OwnServer> {
    const port = await freePort();
    const directory = mkdtempSync(join(tmpdir(), "reprise-bench-"));
    const words = [process.execPath, command, "serve", "--port", String(port), "--data-dir", directory];
    const start = words.map((word) => `"${word.replaceAll(/["\\]/g, String.raw`\$&`)}"`).join(" ");
    const url = `http://127.0.0.1:${port}`;
    return new OwnServer(directory, { label: "reprise", url, apiKey: undefined, adminKey: undefined, start, stallMs });
  }

  [Symbol.dispose](): void {
    rmSync(this.#directory, { recursive: true, force: true });
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === "object" && address !== null ? address.port : 0;
}
