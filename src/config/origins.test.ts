import { expect, test } from "vitest";
import { parseHostName, parseOrigin } from "./origins.ts";

test.each([
  "*",
  "https://app.example",
  "http://localhost:3000",
  "http://[::1]:8080",
  "chrome-extension://abc",
  "app://obsidian.md",
])("%s is an origin as browsers write it", (origin) => {
  expect(parseOrigin(origin)).toBe(origin);
});

test.each<[given: string, told: string]>([
  ["http://localhost:3000/", 'write "http://localhost:3000"'],
  ["https://app.example/chat?x=1", 'write "https://app.example"'],
  ["https://App.example", 'write "https://app.example"'],
  ["https://app.example:443", 'write "https://app.example"'],
  ["HTTPS://app.example", 'write "https://app.example"'],
  ["app://obsidian.md/", 'write "app://obsidian.md"'],
  ["localhost", 'write "http://localhost" or "https://localhost"'],
  ["localhost:3000/", 'write "http://localhost:3000" or "https://localhost:3000"'],
  ["null", "all pages without one"],
  ["https://*.example", "patterns are not known"],
  ["*.example", "patterns are not known"],
  ["https://", "no origin"],
  ["http://a b", "not as browsers write"],
])("%s is not, and would never match: it is told what to write", (given, told) => {
  expect(() => parseOrigin(given)).toThrow(told);
});

test.each(["proxy.example", "localhost", "10.0.0.5", "[::1]"])("%s is a host's name", (name) => {
  expect(parseHostName(name)).toBe(name);
});

test.each<[given: string, told: string]>([
  ["https://proxy.example/", 'write "proxy.example"'],
  ["proxy.example:8080", 'write "proxy.example"'],
  ["Proxy.Example", 'write "proxy.example"'],
  ["*.example", "not the name of one host"],
  ["a b", "not the name of one host"],
])("%s is none: it is told what to write", (given, told) => {
  expect(() => parseHostName(given)).toThrow(told);
});
