/** One run of a prompt as a bar: where its tokens came from, how many, and how soon the first token of the answer came. */

const sources = ["computed", "resident", "memory", "disk", "valkey", "s3", "peer", "nixl", "mooncake"];

/** A bar for a prompt that is being read; `show` fills it in. */
export function createRun(number) {
  const root = element("div", "run");
  const bar = element("div", "bar reading-now");
  const firstToken = element("span", "first-token");
  const figures = element("span", "figures");
  const faster = element("span", "faster");
  root.append(element("span", "number", `Run ${number}`), bar, firstToken, figures, faster);

  const started = performance.now();
  const tick = () => {
    figures.textContent = `reading the prompt, ${((performance.now() - started) / 1000).toFixed(1)} s`;
  };
  tick();
  const timer = setInterval(tick, 200);

  return {
    root,
    /** The first text arrived: what remains is the answer. */
    answering() {
      clearInterval(timer);
      figures.textContent = `answering; first token after ${seconds(performance.now() - started)}`;
    },
    /** @param coldMs the first run's time, for comparison; undefined for the first run itself. */
    show(report, coldMs) {
      clearInterval(timer);
      const counts = { computed: report.computed_tokens, ...report.reused };
      const shown = sources.filter((source) => counts[source] > 0);
      bar.classList.remove("reading-now");
      bar.setAttribute("role", "img");
      bar.setAttribute("aria-label", describe(report, shown, counts));
      bar.replaceChildren(...shown.map((source) => segment(source, counts[source])));
      firstToken.replaceChildren("first token ", element("strong", "", seconds(report.ttft_ms)));
      figures.replaceChildren(...shown.map((source) => figure(source, counts[source])));
      const times = coldMs === undefined ? 0 : coldMs / Math.max(report.ttft_ms, 0.1);
      faster.textContent = times >= 1.2 ? `${factor(times)}× faster` : "";
    },
    /** The run ended without a report. */
    end(word) {
      clearInterval(timer);
      bar.classList.remove("reading-now");
      figures.textContent = word;
    },
  };
}

/** An element with a class and text; text is never parsed as HTML. */
export function element(name, className = "", text = "") {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

function segment(source, tokens) {
  const part = element("i", source);
  part.style.flexGrow = String(tokens);
  part.title = `${source}: ${count(tokens)} tokens`;
  return part;
}

function figure(source, tokens) {
  const shown = element("span");
  shown.dataset.source = source;
  shown.append(element("i", `swatch ${source}`), `${source} ${count(tokens)}`);
  return shown;
}

function describe(report, shown, counts) {
  const parts = shown.map((source) => `${count(counts[source])} ${source}`);
  return `Prompt of ${count(report.prompt_tokens)} tokens: ${parts.join(", ")}`;
}

function count(tokens) {
  return tokens.toLocaleString("en");
}

function factor(times) {
  return times >= 10 ? count(Math.round(times)) : times.toFixed(1);
}

function seconds(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
}
