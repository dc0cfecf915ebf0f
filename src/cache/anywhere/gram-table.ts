/**
 * Which chunks have a gram: a hash table of ten bytes an entry, in typed arrays.
 *
 * Pages of 2048 places each serve an equal share of the hashes, in order, and are searched place after place. When 85 % of all
 * places are taken, a quarter more pages are made. A page's entries move when some others were added, so that no addition waits
 * for more than one page (20 us); a moved page's memory is used again:
 *
 *     pages     │ moved │ moved │ not yet │ not yet │           a hash is in the new pages when its old one has moved
 *     grown     │   new   │  new   │
 *
 * An entry of 0 is empty. An entry is removed by moving back those after it, so that none are left behind.
 */
import { assert } from "../../errors.ts";
import type { ChunkId } from "../index/chunk-id.ts";

const pageSlots = 2048;
const slotMask = pageSlots - 1;
const slotShift = 32 - 11;
const mostLoad = 0.85;
const growth = 1.25;
/** While this many are added, a page can move and the rest still has room: 3 % of it. */
const addedPerMove = 64;
const range = 2 ** 32;

/** Entries of one gram; further ones are refused, so that what stands in every text costs no lookup much. */
export const mostPerGram = 8;

class Page {
  readonly hashes = new Uint32Array(pageSlots);
  readonly chunks = new Int32Array(pageSlots);
  readonly ends = new Uint16Array(pageSlots);
  used = 0;

  clear(): this {
    this.hashes.fill(0);
    this.used = 0;
    return this;
  }
}

export class GramTable {
  #pages: Page[] = [new Page()];
  /** The larger table while it is being filled, and how many of the old pages are in it. */
  #grown: (Page | undefined)[] = [];
  #grownPages = 0;
  #moved = 0;
  #spare: Page[] = [];
  #size = 0;
  #untilMove = 0;
  /** What {@link #seek} found: a page and the place in it where a hash's entries begin. */
  #page = this.#pages[0]!; // there is one
  #home = 0;
  /** What {@link find} found. */
  readonly chunks = new Int32Array(mostPerGram);
  readonly ends = new Int32Array(mostPerGram);
  found = 0;

  get size(): number {
    return this.#size;
  }

  /** Memory of all pages. */
  get bytes(): number {
    const pages = this.#pages.length - this.#moved + this.#grown.filter((page) => page !== undefined).length;
    return (pages + this.#spare.length) * pageSlots * 10;
  }

  /** The chunks that have the gram, and where in them it ends. */
  find(hash: number): void {
    this.#seek(hash);
    const { hashes, chunks, ends } = this.#page;
    this.found = 0;
    for (let at = this.#home; hashes[at] !== 0; at = (at + 1) & slotMask) {
      if (hashes[at] !== hash) continue;
      this.chunks[this.found] = chunks[at]!; // within the page
      this.ends[this.found] = ends[at]!; // within the page
      this.found += 1;
    }
  }

  /** @returns `"full"` when there is no place: the gram is often enough there, or its page is full */
  add(hash: number, chunk: ChunkId, end: number): "added" | "full" {
    this.#grow();
    this.#seek(hash);
    const { hashes } = this.#page;
    let same = 0;
    let at = this.#home;
    for (; hashes[at] !== 0; at = (at + 1) & slotMask) if (hashes[at] === hash) same += 1;
    if (same === mostPerGram || this.#page.used === pageSlots - 1) return "full";
    put(this.#page, at, hash, chunk, end);
    this.#size += 1;
    return "added";
  }

  /** @returns whether it was there */
  remove(hash: number, chunk: ChunkId, end: number): boolean {
    this.#seek(hash);
    const page = this.#page;
    const { hashes, chunks, ends } = page;
    let hole = this.#home;
    while (hashes[hole] !== 0 && (hashes[hole] !== hash || chunks[hole] !== chunk || ends[hole] !== end))
      hole = (hole + 1) & slotMask;
    if (hashes[hole] === 0) return false;
    for (let at = (hole + 1) & slotMask; hashes[at] !== 0; at = (at + 1) & slotMask) {
      this.#seek(hashes[at]!); // the same page
      if (((at - this.#home) & slotMask) < ((at - hole) & slotMask)) continue; // it would stand before its home
      hashes[hole] = hashes[at]!; // within the page
      chunks[hole] = chunks[at]!; // within the page
      ends[hole] = ends[at]!; // within the page
      hole = at;
    }
    hashes[hole] = 0;
    page.used -= 1;
    this.#size -= 1;
    return true;
  }

  /** Asserts that every entry is found where it stands. */
  check(): void {
    let count = 0;
    for (const page of [...this.#pages.slice(this.#moved), ...this.#grown]) {
      if (page === undefined) continue;
      const used = page.hashes.filter((hash) => hash !== 0).length;
      assert(used === page.used, "entries of a page are miscounted");
      count += used;
      for (const [slot, hash] of page.hashes.entries()) {
        if (hash === 0) continue;
        this.#seek(hash);
        assert(this.#page === page, "an entry is in another page");
        for (let at = this.#home; at !== slot; at = (at + 1) & slotMask)
          assert(page.hashes[at] !== 0, "an entry cannot be reached from its home");
      }
    }
    assert(count === this.#size, "entries are miscounted");
  }

  #seek(hash: number): void {
    const old = hash * this.#pages.length;
    const page = Math.floor(old / range);
    if (page >= this.#moved) {
      this.#page = this.#pages[page]!; // the hash is below the range
      this.#home = (old - page * range) >>> slotShift;
      return;
    }
    const scaled = hash * this.#grownPages;
    const grown = Math.floor(scaled / range);
    this.#page = this.#grown[grown] ??= this.#spare.pop()?.clear() ?? new Page();
    this.#home = (scaled - grown * range) >>> slotShift;
  }

  /** Begins to grow when it is time, and moves the next page. */
  #grow(): void {
    if (this.#grownPages === 0) {
      if (this.#size < mostLoad * pageSlots * this.#pages.length) return;
      this.#grownPages = Math.max(this.#pages.length + 1, Math.floor(growth * this.#pages.length));
      this.#untilMove = 1;
    }
    this.#untilMove -= 1;
    if (this.#untilMove > 0) return;
    this.#untilMove = addedPerMove;
    this.#moveOne();
  }

  #moveOne(): void {
    const page = this.#pages[this.#moved]!; // not all have moved
    this.#moved += 1;
    for (let slot = 0; slot < pageSlots; slot += 1) {
      const hash = page.hashes[slot]!; // within the page
      if (hash === 0) continue;
      this.#seek(hash);
      const { hashes, used } = this.#page;
      assert(used < pageSlots - 1, "salted hashes are not spread evenly");
      let at = this.#home;
      while (hashes[at] !== 0) at = (at + 1) & slotMask;
      put(this.#page, at, hash, page.chunks[slot]!, page.ends[slot]!); // within the page
    }
    this.#spare.push(page);
    if (this.#moved < this.#pages.length) return;
    this.#pages = Array.from(
      { length: this.#grownPages },
      (_, i) => this.#grown[i] ?? this.#spare.pop()?.clear() ?? new Page(),
    );
    this.#grown = [];
    this.#spare = [];
    this.#grownPages = 0;
    this.#moved = 0;
  }
}

function put(page: Page, at: number, hash: number, chunk: number, end: number): void {
  page.hashes[at] = hash;
  page.chunks[at] = chunk;
  page.ends[at] = end;
  page.used += 1;
}
