import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryDirectory } from "../../../../test/support/data-directory.ts";
import { silentLog } from "../../../log.ts";
import { probeGpu, type ProbeResult } from "./gpu-probe.ts";

const device = { name: "Vulkan0", description: "a GPU", kind: "gpu", freeBytes: 1, totalBytes: 2 };
const found = `process.send({ kind: "devices", devices: [${JSON.stringify(device)}] });`;

/** What a probe comes to whose process does this when it is told to begin. */
async function resultOf(
  body: string,
  { signal = new AbortController().signal, busyMs = 20_000 } = {},
): Promise<ProbeResult> {
  const program = join(temporaryDirectory(), "probe.mjs");
  writeFileSync(program, `process.once("message", () => { ${body} });`);
  return probeGpu({
    place: { build: "own-vulkan", title: "a build", directory: "/nowhere", gpu: "vulkan", root: undefined },
    llamaLib: "/nowhere",
    signal,
    log: silentLog,
    program,
    limits: { silentMs: 1000, hungMs: 1000, busyMs, tickMs: 100 },
  });
}

test("a GPU that computed as it should can be used, whatever its driver does at the end", async () => {
  const usable = { isUsable: true, devices: [device] };
  expect(await resultOf(`${found} process.send({ kind: "usable" });`)).toEqual(usable);
  expect(await resultOf(`${found} process.send({ kind: "usable" }, () => process.abort());`)).toEqual(usable);
  expect(await resultOf(`${found} process.send({ kind: "usable" }, () => { for (;;); });`)).toEqual(usable);
});

test("a death is told with what was done, where, and the last words", async () => {
  const stage = `process.send({ kind: "at", stage: "computing" }, () => { process.stderr.write("no kernel\\n"); process.kill(process.pid, "SIGABRT"); });`;
  expect(await resultOf(`${found} ${stage}`)).toEqual({
    isUsable: false,
    reason: "a trial on a GPU failed while computing: it died of SIGABRT: no kernel",
  });
});

test("a process that hangs, in sleep or at work, is ended and is an answer", async () => {
  const reason = (what: RegExp) => ({ isUsable: false, reason: expect.stringMatching(what) });
  expect(await resultOf("setInterval(() => {}, 1000);")).toEqual(reason(/starting: it did nothing for 1 s/));
  expect(await resultOf("for (;;);", { busyMs: 2000 })).toEqual(reason(/starting: it said nothing for 2 s/));
});

test("nonsense, silence and half an answer are no answer", async () => {
  const strange = ["usable", 5, null, {}, { kind: "usable!" }, { kind: "driver", driver: { devices: 1 } }];
  const devices = [1, [null], [{ name: "a" }]].map((each) => ({ kind: "devices", devices: each }));
  const nonsense = `for (const each of ${JSON.stringify([...strange, ...devices])}) process.send(each);`;
  const usable = `process.send({ kind: "usable" });`;
  for (const body of ["", nonsense, `${found} ${nonsense}`, `${nonsense} ${usable}`, usable, found]) {
    const result = await resultOf(`${body} setTimeout(() => process.exit(0), 50);`);
    expect(result).toEqual({
      isUsable: false,
      reason: expect.stringMatching(/it ended with code 0|it died of SIGKILL/),
    });
  }
});

test("a refusal is told in its own words", async () => {
  expect(
    await resultOf(`process.send({ kind: "refused", code: "LIBRARY_UNSUPPORTED", message: "it is too old" });`),
  ).toEqual({ isUsable: false, reason: "it is too old" });
});

test("who no longer wants an answer waits for nothing but the process's end", async () => {
  const leaving = new AbortController();
  const result = resultOf("for (;;);", leaving);
  leaving.abort(new Error("left"));
  await expect(result).rejects.toThrowError("left");
  await expect(resultOf("for (;;);", leaving)).rejects.toThrowError("left");
});
