import { expect, test, vi } from "vitest";
import { noSignal } from "../tier-suite.ts";
import { TransferThreads } from "./transfer-threads.ts";

let tries = 0;

vi.mock(import("node:worker_threads"), async (original) => {
  const none = vi.fn(function none() {
    tries += 1;
    throw new Error("ERR_WORKER_INIT_FAILED");
  });
  return { ...(await original()), Worker: none as never }; // as where a container may have no more threads
});

test("where no thread can be started, jobs fail at once, and each tries anew", async () => {
  const options = { plugin: "OBJ", prefix: "p", library: "", parameters: {} } as const;
  const threads = new TransferThreads(options, 2);
  const job = { kind: "getAll", names: [], maxBytes: 1 } as const;
  for (let i = 1; i <= 2; i += 1) {
    await expect(threads.run(job, noSignal)).rejects.toThrow("no thread can be started (ERR_WORKER_INIT_FAILED)");
    expect(tries).toBe(i);
  }
  await threads.close();
});
