import { stat } from "node:fs/promises";
import { expect, onTestFinished, test, vi } from "vitest";
import { collect } from "./app/fake-server.ts";
import { eventStream, PatientReader } from "./sse.ts";

test("a wait that ends early loses nothing", async () => {
  let release = (): void => {};
  const gate = new Promise<void>((resolve) => (release = resolve));
  async function* slow() {
    await gate;
    yield 1;
    yield 2;
  }
  const reader = new PatientReader(slow());
  expect(await reader.next(5)).toBe("waiting");
  expect(await reader.next(5)).toBe("waiting");
  release();
  expect(await reader.next(1000)).toEqual({ done: false, value: 1 });
  expect(await reader.next(1000)).toEqual({ done: false, value: 2 });
  expect(await reader.next(1000)).toEqual({ done: true, value: undefined });
});

test("closing while a value is awaited swallows what comes of it", async () => {
  let fail = (): void => {};
  const outcome = new Promise<never>((_, reject) => (fail = () => reject(new Error("late"))));
  const reader = new PatientReader({ [Symbol.asyncIterator]: () => ({ next: () => outcome }) });
  expect(await reader.next(1)).toBe("waiting");
  await reader.close();
  fail();
  await new Promise((resolve) => setImmediate(resolve)); // an unhandled rejection would fail the run here
});

test("frames are made when they are read, and no sooner", async () => {
  let made = 0;
  async function* frames() {
    for (; made < 100;) yield `frame ${++made}`;
  }
  const stream = eventStream({ frames: frames(), stallMs: 10_000, onGone: () => {} });
  const reader = stream.getReader();
  await new Promise((resolve) => setImmediate(resolve));
  expect(made).toBe(0);
  await reader.read();
  await reader.read();
  expect(made).toBe(2);
  await reader.cancel();
});

test("a reader that stops reading is cut after the deadline, one that goes on is not", async () => {
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
  onTestFinished(() => void vi.useRealTimers());
  const onGone = vi.fn();
  async function* endless() {
    for (;;) yield "x";
  }
  const stream = eventStream({ frames: endless(), stallMs: 1000, onGone });
  const reader = stream.getReader();
  for (let turn = 0; turn < 10; turn++) {
    await reader.read();
    await vi.advanceTimersByTimeAsync(999);
  }
  expect(onGone).not.toHaveBeenCalled();
  await vi.advanceTimersByTimeAsync(1);
  await new Promise((resolve) => setImmediate(resolve)); // the deadline is judged after what has arrived was read
  expect(onGone).toHaveBeenCalledExactlyOnceWith("slow_reader");
  expect((await reader.read()).done).toBe(true);
});

test("a reader whose next read arrived while this process was busy is not cut", async () => {
  const onGone = vi.fn();
  async function* endless() {
    for (;;) yield "x";
  }
  const reader = eventStream({ frames: endless(), stallMs: 5, onGone }).getReader();
  await reader.read();
  const next = stat(new URL(import.meta.url)).then(() => reader.read());
  const end = performance.now() + 100;
  while (performance.now() < end); // a decode
  expect((await next).done).toBe(false);
  expect(onGone).not.toHaveBeenCalled();
  await reader.cancel();
});

test("cancelling ends the frames", async () => {
  let ended = false;
  async function* frames() {
    try {
      for (;;) yield "x";
    } finally {
      ended = true;
    }
  }
  const onGone = vi.fn();
  const reader = eventStream({ frames: frames(), stallMs: 1000, onGone }).getReader();
  await reader.read();
  await reader.cancel();
  expect(ended).toBe(true);
  expect(onGone).toHaveBeenCalledExactlyOnceWith("client_gone");
});

test("the bytes are the frames'", async () => {
  async function* frames() {
    yield "data: é\n\n";
    yield ": keep-alive\n\n";
  }
  const stream = eventStream({ frames: frames(), stallMs: 1000, onGone: () => {} });
  const bytes = await collect(stream as unknown as AsyncIterable<Uint8Array>);
  expect(Buffer.concat(bytes).toString()).toBe("data: é\n\n: keep-alive\n\n");
});
