/**
 * Draws the plots of a benchmark report (src/bench/report/plots.ts says what they are) with uPlot. Runs inlined in the
 * report, without a network.
 */
/* global uPlot */
const plots = JSON.parse(document.getElementById("data").textContent);
const plotHeight = 300;
const dodgePixels = 12;

/** What all plots have in common: dots that are hovered show their numbers in the legend; nothing zooms. */
const looks = { cursor: { drag: { x: false, y: false }, y: false }, legend: { live: true } };

/** Targets keep their colour in every plot. */
const targets = [...new Set(plots.flatMap((plot) => plot.series.map(({ label }) => label)))];

/** All places first: how wide one is depends on how many there are. */
const places = plots.map((plot) => {
  const figure = document.createElement("figure");
  const title = document.createElement("h3");
  title.textContent = plot.title;
  const note = document.createElement("figcaption");
  note.textContent = plot.note;
  const place = document.createElement("div");
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", `${plot.title}: ${plot.series.map(({ label }) => label).join(", ")}`);
  figure.append(title, note, place);
  return { plot, figure, place };
});
document.getElementById("plots").append(...places.map(({ figure }) => figure));

const charts = places.map(({ plot, figure, place }) => {
  const width = () => Math.max(240, figure.clientWidth - 34);
  const { options, data } = { spread, cdf, scatter }[plot.kind](plot);
  return { chart: new uPlot({ width: width(), height: plotHeight, ...options }, data, place), width };
});

window.addEventListener("resize", () => {
  for (const { chart, width } of charts) chart.setSize({ width: width(), height: plotHeight });
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const { chart } of charts) chart.redraw(false, true);
});

/** Medians as dots, spans as lines; targets stand beside each other at each place. */
function spread({ places, series, xLabel, yLabel }) {
  const dodge = (index) => (index - (series.length - 1) / 2) * dodgePixels;
  const all = series.flatMap(({ values }) => values.flatMap((value) => (value ? [value.low, value.high] : [])));
  const drawSpan = (chart, index) => {
    const { ctx } = chart;
    const { label, values } = series[index - 1];
    ctx.save();
    ctx.strokeStyle = colourOf(label);
    ctx.fillStyle = colourOf(label);
    ctx.lineWidth = 2 * devicePixelRatio;
    for (const [place, value] of values.entries()) {
      if (!value) continue;
      const x = chart.valToPos(place, "x", true) + dodge(index - 1) * devicePixelRatio;
      const y = (number) => chart.valToPos(number, "y", true);
      ctx.globalAlpha = 0.55;
      ctx.beginPath();
      ctx.moveTo(x, y(value.low));
      ctx.lineTo(x, y(value.high));
      ctx.stroke();
      ctx.globalAlpha = 1;
      dot(ctx, x, y(value.middle));
    }
    ctx.restore();
    return false;
  };
  return {
    options: {
      ...looks,
      scales: {
        x: { time: false, range: [-0.6, places.length - 0.4] },
        y: scaleOf(all),
      },
      axes: [
        {
          ...axis(),
          grid: { show: false },
          splits: (chart) => shownPlaces(chart, places),
          values: (_, shown) => shown.map((at) => shorten(places[at])),
        },
        { ...axis(yLabel), size: 64, values: numbers },
      ],
      series: [
        { label: xLabel, value: (_, at) => places[at] ?? "–" },
        ...series.map(({ label }) => ({
          ...line(label),
          paths: () => null,
          points: { show: drawSpan },
          value: withUnit("ms"),
        })),
      ],
    },
    data: [
      places.map((_, index) => index),
      ...series.map(({ values }) => values.map((value) => value?.middle ?? null)),
    ],
  };
}

function cdf({ x, series, xLabel }) {
  return {
    options: {
      ...looks,
      scales: { x: { time: false, ...scaleOf(x) }, y: { range: [0, 1.02] } },
      axes: [
        { ...axis(xLabel), values: numbers },
        {
          ...axis("share of requests"),
          size: 64,
          values: (_, shown) => shown.map((share) => `${Math.round(share * 100)} %`),
        },
      ],
      series: [
        { label: "at most", value: withUnit("ms") },
        ...series.map(({ label }) => ({
          ...line(label),
          paths: uPlot.paths.stepped({ align: 1 }),
          points: { show: false },
          value: (_, share) => (share === null ? "–" : `${(share * 100).toFixed(1)} %`),
        })),
      ],
    },
    data: [x, ...series.map(({ shares }) => shares)],
  };
}

/** Named dots, joined in their order where they are steps of a sweep. A place on x that two targets share stands twice. */
function scatter({ series, xLabel, yLabel, joined }) {
  const points = series
    .flatMap(({ label, points }) => points.map((point) => ({ ...point, label })))
    .toSorted((a, b) => a.x - b.x);
  const most = points.at(-1).x;
  const drawPoints = (chart, index) => {
    const { ctx } = chart;
    const { label, points: own } = series[index - 1];
    const places = own.map(({ x, y }) => [chart.valToPos(x, "x", true), chart.valToPos(y, "y", true)]);
    ctx.save();
    ctx.strokeStyle = colourOf(label);
    ctx.fillStyle = colourOf(label);
    if (joined) {
      ctx.lineWidth = 1.5 * devicePixelRatio;
      ctx.beginPath();
      for (const place of places) ctx.lineTo(...place);
      ctx.stroke();
    }
    for (const place of places) dot(ctx, ...place);
    ctx.restore();
    return false;
  };
  return {
    options: {
      ...looks,
      hooks: { draw: [(chart) => writeNames(chart, points)] },
      scales: {
        x: { time: false, range: [0, most * 1.15 || 1] },
        y: scaleOf(points.map(({ y }) => y)),
      },
      axes: [
        { ...axis(xLabel), values: numbers },
        { ...axis(yLabel), size: 64, values: numbers },
      ],
      series: [
        {
          label: "group",
          value: (_, x, __, at) => (points[at] ? `${points[at].name}, ${x.toFixed(1)} tokens/s` : "–"),
        },
        ...series.map(({ label }) => ({
          ...line(label),
          paths: () => null,
          points: { show: drawPoints },
          value: withUnit("ms"),
        })),
      ],
    },
    data: [
      points.map(({ x }) => x),
      ...series.map(({ label }) => points.map((point) => (point.label === label ? point.y : null))),
    ],
  };
}

/** Writes each point's name to its right or left, where no dot and no earlier name stands; the legend has all names. */
function writeNames(chart, points) {
  const { ctx } = chart;
  const [ratio, reach] = [devicePixelRatio, 8 * devicePixelRatio];
  const dots = points.map(({ x, y }) => ({ left: chart.valToPos(x, "x", true), top: chart.valToPos(y, "y", true) }));
  const taken = dots.map(({ left, top }) => ({ from: left - reach, to: left + reach, top }));
  ctx.save();
  ctx.font = `${11 * ratio}px system-ui, sans-serif`;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillStyle = colour("--quiet");
  for (const [index, { left, top }] of dots.entries()) {
    const name = shorten(points[index].name);
    const { width } = ctx.measureText(name);
    const isFree = (from) =>
      from >= chart.bbox.left &&
      from + width <= chart.bbox.left + chart.bbox.width &&
      taken.every(
        (box, other) =>
          other === index || box.to < from || box.from > from + width || Math.abs(box.top - top) > 12 * ratio,
      );
    const from = [left + reach, left - reach - width].find(isFree);
    if (from === undefined) continue;
    ctx.fillText(name, from, top);
    taken.push({ from, to: from + width, top });
  }
  ctx.restore();
}

function dot(ctx, x, y) {
  ctx.beginPath();
  ctx.arc(x, y, 4.5 * devicePixelRatio, 0, 2 * Math.PI);
  ctx.fill();
}

/** Times that span more than a decade and a half are shown by their logarithm. */
function isWide(values) {
  return Math.max(...values) > 30 * Math.min(...values) && Math.min(...values) > 0;
}

/** A scale that holds `values`, which need not be those of the series. */
function scaleOf(values) {
  const [least, most] = [Math.min(...values), Math.max(...values)];
  if (!isWide(values)) return { distr: 1, range: [0, most * 1.05 || 1] };
  return { distr: 3, range: [oneDigit(least / 1.1, Math.floor), oneDigit(most * 1.1, Math.ceil)] };
}

/** Logarithmic ticks are counted from the lower bound: it must be round. */
function oneDigit(value, round) {
  const power = 10 ** Math.floor(Math.log10(value));
  return round(value / power) * power;
}

function line(label) {
  return { label, stroke: () => colourOf(label), width: 2 };
}

function axis(label) {
  const grid = { stroke: () => colour("--line"), width: 1 };
  const text = {
    stroke: () => colour("--quiet"),
    font: "12px system-ui, sans-serif",
    labelFont: "12px system-ui, sans-serif",
  };
  return { ...text, grid, ticks: grid, ...(label === undefined ? {} : { label, labelSize: 20 }) };
}

/** A tick's number; uPlot gives null for those of a logarithmic axis that shall have no text. */
function numbers(_, shown) {
  return shown.map((value) => (value === null ? "" : value.toLocaleString("en")));
}

function withUnit(unit) {
  return (_, value) => (value === null || value === undefined ? "–" : `${value.toFixed(value >= 100 ? 0 : 1)} ${unit}`);
}

/** As many places as have room for their names, evenly. */
function shownPlaces(chart, places) {
  const longest = Math.max(...places.map((place) => shorten(place).length));
  const room = Math.max(1, Math.floor((chart.width - 80) / (longest * 7 + 14)));
  const step = Math.ceil(places.length / room);
  return places.flatMap((_, index) => (index % step === 0 ? [index] : []));
}

/** Groups often differ in their last words, such as "a long document, round 12". */
function shorten(name) {
  return name.length > 16 ? `${name.slice(0, 5).trim()}…${name.slice(-10).trim()}` : name;
}

function colourOf(target) {
  return colour(`--colour-${targets.indexOf(target) % 6}`);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}
