/** What a template does wrong, or what it says about its input. */
export class TemplateError extends Error {
  /** Line of the template, from 1. */
  line: number | undefined;

  constructor(message: string, line?: number) {
    super(message);
    this.name = "TemplateError";
    this.line = line;
  }
}
