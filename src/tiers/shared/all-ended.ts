/** What all gave, when all have ended: none touches its memory any more, also where one has failed. */
export async function allEnded<T>(works: readonly Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return Promise.all(works);
}
