/** A promise that is settled from outside. Nobody has to listen to its failure. */
export class Deferred<T> {
  readonly promise: Promise<T>;
  resolve!: (value: T) => void; // set by the promise's constructor, which runs at once
  reject!: (error: unknown) => void; // likewise

  constructor() {
    this.promise = new Promise<T>((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    this.promise.catch(() => {}); // those who wait for it hear of it
  }
}
