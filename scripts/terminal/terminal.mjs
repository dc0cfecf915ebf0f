// A pseudo-terminal in which one command runs; what it shows is read off its screen. `script` of util-linux makes it.
import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { Screen } from "./screen.mjs";

export class Terminal {
  #screen;
  #child;
  #shown = 0;
  #seen = [];

  constructor(command, { columns, cwd, env }) {
    this.#screen = new Screen(columns);
    const sized = `stty cols ${columns} rows 40; ${command}`;
    this.#child = spawn("script", ["-qefc", sized, "/dev/null"], { cwd, env: { ...env, SHELL: "/bin/bash" } });
    for (const stream of [this.#child.stdout, this.#child.stderr])
      stream.setEncoding("utf8").on("data", (text) => {
        this.#screen.write(text);
        this.#seen.push(this.#screen.lines());
      });
    this.ended = new Promise((done) => {
      this.#child.once("error", (error) => done(error.message));
      this.#child.once("close", (code) => done(code));
    });
  }

  /** Waits for a text among what was not taken yet, which may be followed by more of its line. @throws Error when the command ends before */
  async until(text) {
    let over = false;
    void this.ended.then(() => (over = true));
    while (!this.#screen.lines(this.#shown).join("\n").includes(text)) {
      if (over) throw new Error(`it ended without "${text}":\n${this.#screen.lines().join("\n")}`);
      await sleep(20);
    }
    await sleep(200);
  }

  /** The lines that it shows and that were not taken yet. */
  take() {
    const lines = this.#screen.lines(this.#shown);
    this.#shown = this.#screen.end;
    return lines;
  }

  /** What it showed in the middle of its run, if some of that is gone by its end; else nothing. */
  passing() {
    const middle = this.#seen[Math.floor(this.#seen.length / 2)] ?? [];
    const last = this.#screen.lines();
    return middle.every((line) => line === "" || last.includes(line)) ? [] : middle;
  }

  type(text) {
    this.#child.stdin.write(text);
  }

  kill() {
    this.#child.kill("SIGKILL"); // its end is the terminal's, of which the command is told
  }
}
