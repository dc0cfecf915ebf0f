/**
 * Chat templates: Jinja2 as transformers sets it up, with values that know what was typed. Parsed once, rendered often; a
 * rendering is bounded in steps, depth and length, and sees nothing but the values it is given.
 */
import { globals } from "./globals.ts";
import { parse } from "./parser.ts";
import { Renderer } from "./renderer.ts";
import { type Limits, Run } from "./run.ts";
import { Scope } from "./scope.ts";
import type { Body } from "./syntax.ts";
import { TemplateError } from "./template-error.ts";
import type { Text } from "./text.ts";
import type { Value } from "./values.ts";

export class Template {
  readonly #body: Body;

  private constructor(body: Body) {
    this.#body = body;
  }

  /** @throws TemplateError with the line of the fault. */
  static parse(source: string): Template {
    return new Template(bounded(() => parse(source)));
  }

  /** @throws TemplateError for what the template refuses, does wrong, or takes too much for. */
  render(
    variables: Iterable<readonly [name: string, value: Value]>,
    options: { limits: Limits; now?: () => Date },
  ): Text {
    const { limits, now = () => new Date() } = options;
    const run = new Run(limits);
    const context = new Scope();
    for (const [name, value] of globals(run, now)) context.set(name, value);
    for (const [name, value] of variables) context.set(name, value);
    return bounded(() => new Renderer(run, context).render(this.#body));
  }
}

/** A nesting that fits no stack is the template's fault. */
function bounded<T>(body: () => T): T {
  try {
    return body();
  } catch (error) {
    if (error instanceof RangeError) throw new TemplateError("the template is nested too deeply");
    throw error;
  }
}
