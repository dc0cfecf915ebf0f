/**
 * A running benchmark on a terminal: what is being done, and under it one line per target with its figures so far. Nothing
 * where stderr is a file or a pipe.
 *
 * Figures are redrawn once a second and from the last few hundred answers, so that the display is no part of what is
 * measured: a sort of 200 numbers takes some 20 µs.
 */
import { MultiBar, type SingleBar } from "cli-progress";
import { metrics } from "../bench/metrics.ts";
import type { Sample } from "../bench/result.ts";
import { distributionOf } from "../bench/summary.ts";
import { figure } from "../bench/table.ts";

export interface BenchProgress {
  /** @param share of the run that is behind, 0 to 1. */
  readonly onStep: (step: string, share: number) => void;
  readonly onSample: (sample: Sample) => void;
  readonly end: () => void;
}

const redrawMs = 1000;

export function showBenchProgress(stream: NodeJS.WriteStream = process.stderr): BenchProgress {
  if (!stream.isTTY) return { onStep() {}, onSample() {}, end() {} };
  const bars = new MultiBar({
    format: "{bar} {percentage} % {text}",
    barsize: 20,
    stream,
    clearOnComplete: true,
    hideCursor: true,
    fps: 2,
    linewrap: false,
  });
  const whole = bars.create(100, 0, { text: "" });
  const lines = new Map<string, { bar: SingleBar; figures: TargetFigures }>();
  const redraw = setInterval(() => {
    for (const { bar, figures } of lines.values()) bar.update(0, { text: figures.text() });
  }, redrawMs).unref();
  return {
    onStep: (step, share) => whole.update(Math.round(share * 100), { text: step }),
    onSample(sample) {
      let line = lines.get(sample.target);
      if (line === undefined) {
        const figures = new TargetFigures(sample.target);
        line = { figures, bar: bars.create(1, 0, { text: "" }, { format: "{text}" }) };
        lines.set(sample.target, line);
      }
      line.figures.add(sample);
    },
    end() {
      clearInterval(redraw);
      bars.stop();
    },
  };
}

/** What one target did lately. */
export class TargetFigures {
  readonly #label: string;
  readonly #ttft = new Latest();
  readonly #gap = new Latest();
  #ok = 0;
  #failed = 0;

  constructor(label: string) {
    this.#label = label;
  }

  add(sample: Sample): void {
    if (sample.outcome === "ok") this.#ok += 1;
    else this.#failed += 1;
    this.#ttft.add(metrics.ttft.of(sample));
    this.#gap.add(metrics.itl.of(sample));
  }

  /** `reprise: 31 ok, 2 not; TTFT 104 ms mean, 96.1 p50, 180 p90, 312 p99; gap 11.2 ms (last 33 answers)`. */
  text(): string {
    const [ttft, gap] = [distributionOf(this.#ttft.values), distributionOf(this.#gap.values)];
    const times =
      ttft === undefined
        ? ""
        : `; TTFT ${figure(ttft.mean)} ms mean, ${figure(ttft.p50)} p50, ${figure(ttft.p90)} p90, ${figure(ttft.p99)} p99` +
          `; gap ${figure(gap?.p50)} ms (last ${ttft.count} answers)`;
    return `${this.#label}: ${this.#ok} ok, ${this.#failed} not${times}`;
  }
}

/** The latest numbers, in no order. */
class Latest {
  readonly values: number[] = [];
  #next = 0;

  add(value: number | undefined): void {
    if (value === undefined) return;
    this.values[this.#next] = value;
    this.#next = (this.#next + 1) % kept;
  }
}

const kept = 200;
