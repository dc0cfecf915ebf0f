/** Compares a secret that was given with the one that is wanted, without telling by its duration how much agrees. */
import { createHash, timingSafeEqual } from "node:crypto";

export function isSame(given: string, wanted: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text, "utf8").digest();
  return timingSafeEqual(digest(given), digest(wanted));
}
