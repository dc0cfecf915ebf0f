/** The engine process as the server holds it: a child that has the model's files, and the flag that stops its decode. */
import { describe } from "../../../errors.ts";
import type { Log } from "../../../log.ts";
import { AbortFlag } from "../abort-flag.ts";
import { Child, firstInherited } from "./child.ts";
import type { EngineSettings } from "../engine-settings.ts";
import type { FromEngine, ToEngine } from "../messages.ts";
import type { InheritedFiles } from "../model/model-files.ts";

export interface EngineChildOptions {
  readonly settings: EngineSettings;
  readonly program: string | undefined;
  /** Open for as long as the process is started; it inherits them. */
  readonly model: InheritedFiles;
  readonly onMessage: (message: FromEngine) => void;
  /** The process is gone, or could not be started. Called once, never before the constructor has returned. */
  readonly onExit: (how: string) => void;
  readonly log: Log;
}

export class EngineChild {
  readonly #flag: AbortFlag | undefined;
  readonly #child: Child<ToEngine, FromEngine> | undefined;

  constructor(options: EngineChildOptions) {
    const { settings, program = "process/engine-process.js", log, onMessage } = options;
    const { path, identity, descriptors } = options.model;
    let flag: AbortFlag;
    try {
      flag = AbortFlag.create();
    } catch (error) {
      setImmediate(() => options.onExit(`it cannot be started without its abort flag: ${describe(error)}`));
      return;
    }
    this.#flag = flag;
    this.#child = new Child<ToEngine, FromEngine>({
      program,
      inherits: [flag.descriptor!, ...descriptors], // just opened
      log,
      onMessage,
      onExit: (how) => {
        flag.close();
        options.onExit(how);
      },
    });
    // The process has what it inherits under numbers of its own.
    const model = { path, identity, descriptors: descriptors.map((_, part) => firstInherited + 1 + part) };
    this.send({ kind: "start", options: { settings, model, abortFlag: firstInherited } });
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  send(message: ToEngine): void {
    this.#child?.send(message);
  }

  /** Stops the decode that runs, if it is for this request alone; a cancellation must be sent right after. */
  raiseAbort(request: number): void {
    this.#flag?.raise(request);
  }

  /** Ends the process and waits until it is gone. */
  async kill(): Promise<void> {
    await this.#child?.kill();
  }
}
