import { expect, test } from "vitest";
import { parseCommand } from "./arguments.ts";
import type { Command } from "./command.ts";
import { commandHelp } from "./help.ts";

const measure: Command = {
  name: "measure",
  summary: "measures",
  settings: "none",
  options: {
    url: { value: "URL", help: "A server.", repeated: true },
    rounds: { value: "N", help: "Rounds." },
  },
  variants: {
    chat: { summary: "a chat", options: { users: { value: "N", help: "Users. [4]" } } },
    burst: { summary: "a burst", options: {} },
  },
  run: () => Promise.resolve(0),
};

test("a variant comes first; options that may be repeated keep their order, of others the last one counts", () => {
  const typed = ["chat", "--url", "a", "--rounds", "1", "--url=b", "--rounds", "2", "--users", "9"];
  expect(parseCommand(typed, {}, measure)).toMatchObject({
    variant: "chat",
    own: { rounds: "2", users: "9" },
    repeated: { url: ["a", "b"] },
    typed,
  });
});

test("no variant, an unknown one, and another variant's option are told", () => {
  expect(() => parseCommand([], {}, measure)).toThrow('a name must follow "measure"; there are: chat, burst');
  expect(() => parseCommand(["--url", "a"], {}, measure)).toThrow("a name must follow");
  expect(() => parseCommand(["chatt"], {}, measure)).toThrow('"chatt" is unknown; did you mean "chat"?');
  expect(() => parseCommand(["burst", "--users", "3", "more"], {}, measure)).toThrow(
    /--users: no such option[^]*"more" is not expected here/,
  );
});

test("a command without settings takes none of them, neither as a flag nor from the environment", () => {
  expect(() => parseCommand(["chat", "--port", "1"], {}, measure)).toThrow("--port: no such option");
  expect(() => parseCommand(["chat"], { REPRISE_PORT: "none" }, measure)).not.toThrow();
  const serving = { name: "serve", options: {} };
  expect(() => parseCommand([], { REPRISE_PORT: "none" }, serving)).toThrow("REPRISE_PORT");
  expect(parseCommand(["--port", "1"], {}, serving)).toMatchObject({ variant: "", config: { port: 1 }, own: {} });
});

test("variables that are no settings are a warning of the command, and of none that reads no settings", () => {
  const environment = { REPRISE_WORDS: "x", REPRISE_PORT: "tcp://10.0.0.1:8080" };
  expect(parseCommand([], environment, { name: "serve", options: {} })).toMatchObject({
    warnings: ["REPRISE_WORDS: no such setting, left alone"],
    config: { port: 8080 },
  });
  expect(parseCommand(["chat"], environment, measure).warnings).toEqual([]);
});

test("some settings only; a variant for when no name follows; an operand that may be left out", () => {
  const keep: Command = {
    name: "keep",
    summary: "keeps",
    settings: ["dataDir"],
    options: {},
    variants: {
      "": { summary: "keeps", options: {} },
      empty: { summary: "empties", options: {}, operands: ["DIR", "[MORE]"] },
    },
    run: () => Promise.resolve(0),
  };
  expect(parseCommand([], {}, keep)).toMatchObject({ variant: "" });
  expect(parseCommand(["--data-dir", "/x"], { REPRISE_PORT: "1" }, keep)).toMatchObject({
    variant: "",
    config: { dataDir: "/x", port: 1 },
  });
  expect(() => parseCommand(["--port", "1"], {}, keep)).toThrow("--port: no such option");
  expect(parseCommand(["empty", "a"], {}, keep)).toMatchObject({ variant: "empty", operands: ["a"] });
  expect(parseCommand(["empty", "a", "b"], {}, keep)).toMatchObject({ operands: ["a", "b"] });
  expect(() => parseCommand(["empty"], {}, keep)).toThrow("DIR is missing");
  expect(() => parseCommand(["empt"], {}, keep)).toThrow('did you mean "empty"?; there are: empty');
  expect(commandHelp(keep)).toMatch(/keep \[NAME\][^]*empty +empties[^]*--data-dir DIR/);
  expect(commandHelp(keep)).not.toContain("--port");
});

test("help lists the variants, and of one of them its own options first", () => {
  expect(commandHelp(measure)).toMatch(/measure NAME[^]*chat +a chat[^]*--url URL/);
  expect(commandHelp(measure)).not.toContain("--users");
  expect(commandHelp(measure, "chat")).toMatch(/reprise measure chat: a chat[^]*--users N[^]*--url URL/);
});

test("letters for the settings that are typed most, and what other servers call them is told", () => {
  const serving = { name: "serve", options: {}, operands: ["[FILE]"] };
  expect(parseCommand(["-m", "a.gguf", "-c", "4096", "-p", "0", "-t", "2"], {}, serving).config).toMatchObject({
    model: "a.gguf",
    context: 4096,
    port: 0,
    threads: 2,
  });
  const typed = [
    "-ngl",
    "99",
    "--ctx-size",
    "1",
    "--max-num-seqs=4",
    "-tb",
    "2",
    "--draft-max",
    "8",
    "-mg",
    "1",
    "--unheard-of",
    "7",
    "file.gguf",
    "another",
  ];
  expect(() => parseCommand(typed, {}, serving)).toThrow(
    [
      "-ngl: no such option; here it is called --gpu-layers",
      "--ctx-size: no such option; here it is called --context",
      "--max-num-seqs: no such option; here it is called --sequences",
      "-tb: no such option; here it is called --threads",
      "--draft-max: no such option; here it is called --draft",
      "-mg: no such option; CUDA_VISIBLE_DEVICES or GGML_VK_VISIBLE_DEVICES chooses among GPUs (docs/gpu.md)",
      "--unheard-of: no such option",
      '"another" is not expected here',
    ].join("\n"),
  );
});

test("an option without its value is told with what may stand there, at the end and before another option", () => {
  const serving = { name: "serve", options: { users: { value: "N", help: "Users." } } };
  expect(() => parseCommand(["--draft"], {}, serving)).toThrow(/^--draft needs a value: off\|lookup$/);
  expect(() => parseCommand(["--users"], {}, serving)).toThrow(/^--users needs a value: N$/);
  expect(() => parseCommand(["--config"], {}, serving)).toThrow(/^--config needs a value: FILE\.yaml$/);
  expect(() => parseCommand(["--data-dir", "--port", "0"], {}, serving)).toThrow(/^--data-dir needs a value: DIR$/);
  // Nobody's option: a folder may be called so.
  expect(parseCommand(["--data-dir", "--odd"], {}, serving).config.dataDir).toBe("--odd");
  expect(parseCommand(["--data-dir=--port"], {}, serving).config.dataDir).toBe("--port");
});
