/** `POST /cache/resize {"memory": "1GiB"}`: moves the memory tier's capacity while the server runs. It is all tenants'. */
import { Hono } from "hono";
import * as v from "valibot";
import { parseBytes } from "../../bytes.ts";
import { describe, RepriseError } from "../../errors.ts";
import type { Access } from "../access.ts";
import { senderOf, type AppEnv } from "../app-env.ts";
import type { BodyReader } from "../read-json.ts";

/** What the capacity is now, and whether all that was to go is gone. */
export interface Resized {
  readonly state: "done" | "shrinking";
  /** The memory tier's figures, as in `/cache/stats`. */
  readonly memory: object;
}

/** Moves the memory tier's capacity. @throws RepriseError BAD_REQUEST with the field `memory`. */
export type ResizeMemory = (capacityBytes: number) => Promise<Resized>;

export function cacheSizeRoutes(parts: {
  readonly resize: ResizeMemory;
  readonly bodies: BodyReader;
  readonly access: Access;
}): Hono<AppEnv> {
  const { resize, bodies, access } = parts;
  const app = new Hono<AppEnv>();
  app.post("/cache/resize", async (c) => {
    access.mustBeAdmin(c.get("caller"));
    const resized = await resize(parseSize(await bodies.json(c.req.raw, { sender: senderOf(c) })));
    // 202: memory that is in use goes when it no longer is.
    return c.json(resized, resized.state === "done" ? 200 : 202);
  });
  return app;
}

const schema = v.object({ memory: v.union([v.string(), v.pipe(v.number(), v.safeInteger(), v.minValue(0))]) });

function parseSize(body: unknown): number {
  const parsed = v.safeParse(schema, body);
  if (!parsed.success) throw refusal(`must be a size, such as "1GiB", or a number of bytes`);
  const { memory } = parsed.output;
  if (typeof memory === "number") return memory;
  try {
    return parseBytes(memory);
  } catch (error) {
    throw refusal(describe(error));
  }
}

function refusal(reason: string): RepriseError {
  return new RepriseError("BAD_REQUEST", `memory: ${reason}`, { field: "memory" });
}
