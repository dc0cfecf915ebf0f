/** Where the small model lies that ships with this program. */
import { fileURLToPath } from "node:url";

export function shippedModelPath(): string {
  return fileURLToPath(new URL("../../models/reprise-22m-q8_0.gguf", import.meta.url));
}
