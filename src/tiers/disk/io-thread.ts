/**
 * One I/O thread: moves bytes between a file and memory that its owner keeps in place, and hashes what it moves.
 *
 * Memory is named by its address, which is the same in all threads of a process, so nothing is copied on the way. The
 * calls are synchronous: a thread has one at a time, and as many are under way as there are threads (io-threads.ts).
 */
import { fdatasyncSync, readvSync, writevSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { codeOf, describe } from "../../errors.ts";
import { allocate, memoryAt, type Pointer } from "../../ffi/posix.ts";
import { alignedBuffer, isAligned } from "./aligned.ts";
import { completeHeaders } from "./record.ts";
import { leavesOf } from "../payload-checksum.ts";

/** A stretch of memory that stays where it is until the answer comes: a part of a buffer. */
export interface Place {
  /** Where the buffer begins, and its length. */
  readonly address: Pointer;
  readonly bufferBytes: number;
  readonly offset: number;
  readonly bytes: number;
}

export type IoRequest =
  /** `direct`: the file is open with O_DIRECT; what is not aligned goes through a buffer that is. */
  | ({
      readonly file: number;
      readonly position: number;
      readonly places: readonly Place[];
      readonly direct: boolean;
    } & (
      | { readonly kind: "read" }
      /** `headers`: which places are headers of records that are to be completed first. */
      | { readonly kind: "write"; readonly headers: readonly number[] }
    ))
  | { readonly kind: "allocate"; readonly file: number; readonly bytes: number }
  | { readonly kind: "datasync"; readonly file: number };

/** `bytes` moved, and the leaves of each place that was read. */
export interface IoAnswer {
  readonly bytes: number;
  readonly leaves: readonly (readonly bigint[])[];
  readonly full: boolean;
  readonly error: { readonly message: string; readonly code: string | undefined } | undefined;
}

const nothing: IoAnswer = { bytes: 0, leaves: [], full: false, error: undefined };

parentPort?.on("message", (request: IoRequest) => {
  try {
    parentPort?.postMessage(serve(request));
  } catch (error) {
    parentPort?.postMessage({ ...nothing, error: { message: describe(error), code: codeOf(error) } });
  }
});

parentPort?.postMessage(nothing); // ready

function serve(request: IoRequest): IoAnswer {
  switch (request.kind) {
    case "allocate":
      return { ...nothing, full: allocate(request.file, 0, request.bytes) === "full" };
    case "datasync":
      fdatasyncSync(request.file);
      return nothing;
    default:
      return move(request);
  }
}

function move(request: Extract<IoRequest, { kind: "read" | "write" }>): IoAnswer {
  const { kind, file, position, direct } = request;
  const views = request.places.map(viewOf);
  if (kind === "write") completeHeaders(views, request.headers);
  const targets = direct ? aligned(views, { copy: kind === "write" }) : views;
  if (kind === "write") return { ...nothing, bytes: writeAll(file, targets, position) };
  const bytes = readAll(file, targets, position);
  if (targets !== views) scatter(targets[0]!, views); // aligned() made one of all
  return { ...nothing, bytes, leaves: views.map(leavesOf) };
}

/**
 * Views of large buffers (the pool's extents), made once: V8 counts each anew as memory that the thread holds, and collecting
 * them took half of the processor time. One whose buffer is gone is never looked at, for nobody names it.
 */
const views = new Map<Pointer, Uint8Array>();
const largeBytes = 1024 * 1024;
const mostViews = 4096;

function viewOf({ address, bufferBytes, offset, bytes }: Place): Uint8Array {
  if (bufferBytes < largeBytes) return new Uint8Array(memoryAt(address, bufferBytes), offset, bytes);
  let view = views.get(address);
  if (view?.length !== bufferBytes) {
    if (views.size >= mostViews) views.clear();
    view = new Uint8Array(memoryAt(address, bufferBytes));
    views.set(address, view);
  }
  return view.subarray(offset, offset + bytes);
}

/** The views themselves where O_DIRECT takes them, else one buffer in their place. */
function aligned(views: readonly Uint8Array[], { copy }: { readonly copy: boolean }): readonly Uint8Array[] {
  if (views.every(isAligned)) return views;
  const buffer = alignedBuffer(views.reduce((sum, view) => sum + view.length, 0));
  let at = 0;
  for (const view of copy ? views : []) {
    buffer.set(view, at);
    at += view.length;
  }
  return [buffer];
}

function scatter(from: Uint8Array, views: readonly Uint8Array[]): void {
  let at = 0;
  for (const view of views) {
    view.set(from.subarray(at, at + view.length));
    at += view.length;
  }
}

function readAll(file: number, views: readonly Uint8Array[], position: number): number {
  return moveAll(views, (left, done) => readvSync(file, left, position + done));
}

function writeAll(file: number, views: readonly Uint8Array[], position: number): number {
  return moveAll(views, (left, done) => writevSync(file, left, position + done));
}

/** Repeats a call that may move less than it was given; ends when it moves nothing (the end of a file). */
function moveAll(views: readonly Uint8Array[], move: (left: Uint8Array[], done: number) => number): number {
  const total = views.reduce((sum, view) => sum + view.length, 0);
  let left = [...views];
  let done = 0;
  while (done < total) {
    const moved = move(left, done);
    if (moved === 0) break;
    done += moved;
    left = afterBytes(left, moved);
  }
  return done;
}

function afterBytes(views: readonly Uint8Array[], bytes: number): Uint8Array[] {
  const left: Uint8Array[] = [];
  let skip = bytes;
  for (const view of views) {
    if (skip < view.length) left.push(view.subarray(skip));
    skip = Math.max(0, skip - view.length);
  }
  return left;
}
