import { expect, test } from "vitest";
import { OptionReader } from "./option-reader.ts";

const options = {
  users: { value: "N", help: "", default: "4" },
  qps: { value: "RATE", help: "", default: "0.5" },
  order: { value: "ORDER", help: "", default: "tile" },
  limit: { value: "N", help: "", default: "none" },
};

test("what is not given takes its default", () => {
  const reader = new OptionReader(options, { users: "7", unknown: "x" });
  expect(reader.whole("users")).toBe(7);
  expect(reader.above0("qps")).toBe(0.5);
  expect(reader.oneOf("order", ["random", "tile"])).toBe("tile");
  expect(reader.wholeOrNone("limit")).toBe(Infinity);
  expect(() => reader.done()).not.toThrow();
});

test("all faults are reported together, each by its flag and with what was typed", () => {
  const reader = new OptionReader(options, { users: "1e3", qps: "0", order: "up", limit: "-1" });
  reader.whole("users");
  reader.above0("qps");
  reader.oneOf("order", ["random", "tile"]);
  reader.wholeOrNone("limit");
  expect(() => reader.done()).toThrow(
    [
      '--users wants a whole number, 1 or more: "1e3"',
      '--qps wants a number above 0: "0"',
      '--order wants one of random, tile: "up"',
      '--limit wants a whole number, 1 or more, or "none": "-1"',
    ].join("\n"),
  );
});

test.each(["", " ", "x", "1.5", "0x10", "99999999999999999999"])('"%s" is no whole number', (typed) => {
  const reader = new OptionReader(options, { users: typed });
  reader.whole("users");
  expect(() => reader.done()).toThrow("--users");
});
