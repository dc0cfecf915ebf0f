/** The figures of bench/eviction.ts as one SVG: a panel per trace, capacity to the right (logarithmic), hits upwards. */
export interface TraceFigures {
  readonly title: string;
  readonly rows: readonly { readonly policy: string; readonly percent: readonly number[] }[];
}

const panel = { width: 420, height: 300, left: 44, top: 34, bottom: 40, right: 12 };
const legendWidth = 190;
const colors = ["#9aa0a6", "#1a73e8", "#a142f4", "#e8710a", "#12858d", "#5f8dd3", "#d93025", "#202124"];

export function plotOf(traces: readonly TraceFigures[], capacities: readonly number[]): string {
  const width = traces.length * panel.width + legendWidth;
  const top = Math.max(...traces.flatMap(({ rows }) => rows.flatMap(({ percent }) => percent)));
  const limit = Math.ceil(top / 10) * 10;
  const panels = traces.map((trace, i) => panelOf(trace, { capacities, limit, x: i * panel.width }));
  const policies = traces[0]?.rows.map(({ policy }) => policy) ?? [];
  const legend = policies.map((policy, i) => {
    const x = traces.length * panel.width + 8;
    const y = panel.top + 10 + i * 20;
    return `<path d="M${x} ${y}h22" ${strokeOf(policy, i)}/><text x="${x + 28}" y="${y + 4}">${policy}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${panel.height}" font-family="sans-serif" font-size="11">`,
    `<rect width="${width}" height="${panel.height}" fill="#fff"/>`,
    ...panels,
    ...legend,
    "</svg>\n",
  ].join("\n");
}

function panelOf(
  { title, rows }: TraceFigures,
  { capacities, limit, x: offset }: { capacities: readonly number[]; limit: number; x: number },
): string {
  const inner = { width: panel.width - panel.left - panel.right, height: panel.height - panel.top - panel.bottom };
  const [least, most] = [Math.log(capacities[0]!), Math.log(capacities.at(-1)!)]; // at least one
  const x = (capacity: number) =>
    (offset + panel.left + ((Math.log(capacity) - least) / Math.max(1e-9, most - least)) * inner.width).toFixed(1);
  const y = (percent: number) => (panel.top + (1 - percent / limit) * inner.height).toFixed(1);
  const grid: string[] = [];
  for (let percent = 0; percent <= limit; percent += 10) {
    grid.push(`<path d="M${offset + panel.left} ${y(percent)}h${inner.width}" stroke="#e0e0e0"/>`);
    grid.push(`<text x="${offset + panel.left - 6}" y="${Number(y(percent)) + 4}" text-anchor="end">${percent}</text>`);
  }
  for (const capacity of capacities)
    grid.push(`<text x="${x(capacity)}" y="${panel.height - 22}" text-anchor="middle">${capacity}</text>`);
  const lines = rows.map(({ policy, percent }, i) => {
    const points = percent.map((value, at) => `${x(capacities[at]!)} ${y(value)}`); // one per capacity
    return `<path d="M${points.join("L")}" fill="none" ${strokeOf(policy, i)}/>`;
  });
  const middle = offset + panel.left + inner.width / 2;
  return [
    `<text x="${middle}" y="18" text-anchor="middle" font-size="13">${title}</text>`,
    `<text x="${middle}" y="${panel.height - 6}" text-anchor="middle">blocks of 512 tokens</text>`,
    `<text x="${offset + 12}" y="${panel.top - 10}">hits, %</text>`,
    ...grid,
    ...lines,
  ].join("\n");
}

function strokeOf(policy: string, i: number): string {
  const width = policy.startsWith("hazard") ? 2.6 : 1.4;
  const dash = policy.startsWith("offline") ? ' stroke-dasharray="4 3"' : "";
  return `stroke="${colors[i % colors.length]}" stroke-width="${width}"${dash}`;
}
