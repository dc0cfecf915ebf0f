import { expect, test } from "vitest";
import { RepriseError } from "../../errors.ts";
import { fakeApp, post } from "../app/fake-server.ts";

const memory = { capacityBytes: 2 ** 30 };

test("POST /cache/resize takes a size as people write it, and says whether it is done", async () => {
  const asked: number[] = [];
  const { app } = fakeApp({
    resizeMemory: (bytes) => {
      asked.push(bytes);
      return Promise.resolve({ state: bytes > 2 ** 30 ? "shrinking" : "done", memory });
    },
  });
  const done = await post(app, "/cache/resize", { memory: "1GiB" });
  expect([done.status, await done.json()]).toEqual([200, { state: "done", memory }]);
  const shrinking = await post(app, "/cache/resize", { memory: 2 ** 31 });
  expect([shrinking.status, await shrinking.json()]).toEqual([202, { state: "shrinking", memory }]);
  expect(asked).toEqual([2 ** 30, 2 ** 31]);
});

test.each([{}, { memory: "much" }, { memory: -1 }, { memory: 1.5 }, { memory: null }, []])(
  "%j is refused, with the field",
  async (body) => {
    const { app } = fakeApp({ resizeMemory: () => Promise.reject(new Error("not asked")) });
    const response = await post(app, "/cache/resize", body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { param: "memory", code: "invalid_value" } });
  },
);

test("memory that is not there is 507; a server without a cache has no such address", async () => {
  const short = new RepriseError("NOT_ENOUGH_MEMORY", "too little");
  const { app } = fakeApp({ resizeMemory: () => Promise.reject(short) });
  const response = await post(app, "/cache/resize", { memory: "1GiB" });
  expect(response.status).toBe(507);
  expect(await response.json()).toMatchObject({ error: { code: "not_enough_memory", message: "too little" } });
  expect((await post(fakeApp().app, "/cache/resize", { memory: "1GiB" })).status).toBe(404);
});
