/** `count` ordinary token ids that follow from `seed`, below `vocabulary`. */
export function someTokens(count: number, seed: number, vocabulary = 500): Uint32Array {
  let state = Math.imul(seed, 2_654_435_761) >>> 0;
  return Uint32Array.from({ length: count }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return 6 + ((state >>> 8) % (vocabulary - 6));
  });
}

/** Random whole numbers below what is asked for, always the same ones. */
export function numbers(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}
