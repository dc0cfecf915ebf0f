// A terminal's screen, as far as progress bars and npm use one: text that wraps, the cursor's moves, what is erased.

export class Screen {
  #columns;
  #rows = [[]];
  #row = 0;
  #column = 0;
  #saved = [0, 0];
  #wraps = true;
  /** Rows that go on in the next one. */
  #wrapped = new Set();
  #rest = "";

  constructor(columns) {
    this.#columns = columns;
  }

  /** Lines from row `first` on, those that did not fit into a row in one piece; empty ones at the end are left out. */
  lines(first = 0) {
    const lines = [];
    for (let row = first; row < this.#rows.length; row += 1) {
      const text = Array.from(this.#rows[row], (sign) => sign ?? " ").join("");
      if (row > first && this.#wrapped.has(row - 1)) lines.push(lines.pop() + text);
      else lines.push(text);
    }
    const trimmed = lines.map((line) => line.trimEnd());
    while (trimmed.at(-1) === "") trimmed.pop();
    return trimmed;
  }

  /** Where the next line begins. */
  get end() {
    return this.#column === 0 ? this.#row : this.#row + 1;
  }

  write(text) {
    let left = this.#rest + text.replaceAll("\x1b", "␛").replaceAll("\x07", "␇");
    for (let taken; left !== ""; left = left.slice(taken.length)) {
      taken = /^␛(?:\[[?\d;]*[@-~]|\][^␇]*␇|[78])/.exec(left)?.[0] ?? "";
      if (taken !== "") this.#control(taken);
      else if (left.startsWith("␛") && left.length < 32) break; // the rest of it comes with the next text
      else this.#put((taken = String.fromCodePoint(left.codePointAt(0))));
    }
    this.#rest = left;
  }

  #put(sign) {
    // What is written anew ends where it ends.
    if (this.#column === 0) this.#wrapped.delete(this.#row);
    if (sign === "\n") this.#row += 1;
    else if (sign === "\r") this.#column = 0;
    else if (sign === "\b") this.#column = Math.max(0, this.#column - 1);
    else if (sign >= " ") {
      if (this.#column === this.#columns) {
        if (this.#wraps) {
          this.#wrapped.add(this.#row);
          [this.#row, this.#column] = [this.#row + 1, 0];
        } else this.#column -= 1;
      }
      (this.#rows[this.#row] ??= [])[this.#column] = sign;
      this.#column += 1;
    }
    for (let row = this.#rows.length; row <= this.#row; row += 1) this.#rows[row] = [];
  }

  #control(sequence) {
    if (sequence === "␛7") this.#saved = [this.#row, this.#column];
    if (sequence === "␛8") [this.#row, this.#column] = this.#saved;
    const [, ask, digits, letter] = /^␛\[(\?)?([\d;]*)(.)$/.exec(sequence) ?? [];
    const count = Number(digits) || 1;
    if (ask !== undefined) {
      if (digits === "7") this.#wraps = letter === "h";
    } else if (letter === "A") this.#row = Math.max(0, this.#row - count);
    else if (letter === "G") this.#column = count - 1;
    else if (letter === "K") this.#eraseLine(digits);
    else if (letter === "J") {
      this.#eraseLine("");
      this.#rows.length = this.#row + 1;
    }
  }

  #eraseLine(part) {
    const row = this.#rows[this.#row];
    if (part === "2") row.length = 0;
    else row.length = Math.min(row.length, this.#column);
  }
}
