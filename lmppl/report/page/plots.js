// The plots: from the document to the points that each of them shows. A panel is {plot, label, points, reference, ends}.

const EMBEDDING = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, tooltip: { theme: "page" } };
const drawn = new WeakMap(); // from a chart's place to what takes it down

function qualityPanels(unit) {
  const points = page.engines.flatMap((engine) =>
    engine.curve
      .filter((point) => point[unit] > 0 && point.measures[page.quality]?.mean != null)
      .map((point) => ({ ...named(engine.label), cost: point[unit], ...point.measures[page.quality] })));
  return points.length ? [{ plot: `quality_${unit}`, points, labels: drawnEngines(points) }] : [];
}

function evidencePanels() {
  const points = page.engines
    .filter((engine) => engine.measures[page.log_evidence]?.mean != null)
    .map((engine) => ({ ...named(engine.label), ...engine.measures[page.log_evidence] }));
  const known = page.rows.map((row) => row.log_evidence).filter((value) => value !== null);
  const whole = known.length > 0 && known.length === page.rows.length;
  const reference = whole ? [{ mean: known.reduce((sum, value) => sum + value, 0) / known.length }] : [];
  return points.length ? [{ plot: "evidence", points, reference }] : [];
}

function densityPanels(row) {
  const outlines = Object.fromEntries(Object.entries(row.densities ?? {}).map(([label, bins]) => [label, outline(bins)]));
  const all = Object.values(outlines).flat();
  const ends = { left: least(all, "x"), right: most(all, "x"), bottom: 0, top: most(all, "y") * 1.05 };
  const reference = outlines["(reference)"] ?? [];
  return panels("densities", outlines, (points, label) => ({
    points: points.map((point) => ({ ...point, ink: ink(label) })), reference, ends,
  }));
}

// A weighted histogram as the line around it.
function outline(bins) {
  const steps = bins.filter(([left, right]) => right > left).flatMap(([left, right, mass]) => {
    const height = mass / (right - left);
    return [{ x: left, y: height }, { x: right, y: height }];
  });
  return steps.length ? [{ x: steps[0].x, y: 0 }, ...steps, { x: steps.at(-1).x, y: 0 }] : [];
}

function tracePanels(row) {
  const all = Object.values(row.traces ?? {}).flat(2).map(([, value]) => ({ y: value })).filter(({ y }) => y !== null);
  const ends = { bottom: least(all, "y"), top: most(all, "y") };
  return panels("traces", row.traces, (chains, label) => ({ points: lines(chains, label, ([x, y]) => ({ x, y })), ends }));
}

function rankPanels(row) {
  return panels("ranks", row.ranks, (chains, label) => {
    const counts = chains.flat();
    const even = counts.reduce((sum, count) => sum + count, 0) / counts.length;
    return { points: lines(chains, label, (y, x) => ({ x: x + 1, y })), reference: [{ y: even }] };
  });
}

function lineagePanels(row) {
  return panels("lineages", row.lineages, (replicates, label) => ({
    points: lines(replicates, label, (y, x) => ({ x, y })).filter(({ y }) => y > 0),
  }));
}

function trainingPanels() {
  const kinds = [["loss", "loss"], ["variance", "variance of the log weight"], ["ess", "effective share of a batch"]];
  return page.engines.filter((engine) => engine.training).flatMap((engine) => kinds.flatMap(([key, title]) => {
    const points = engine.training.curve
      .filter((point) => point[key] !== null && point[key] !== undefined)
      .map((point) => ({ x: point.step, y: point[key], ink: ink(engine.label) }));
    const plot = points.every(({ y }) => y > 0) ? "training_log" : "training";
    return points.length ? [{ plot, points, labels: [engine.label], title: `: ${title}` }] : [];
  }));
}

// A panel an engine, in the order of the table, of those that have something to show.
function panels(plot, byEngine, made) {
  const shown = page.engines.filter((engine) => byEngine?.[engine.label]?.length);
  return shown.map(({ label }) => ({ plot, labels: [label], ...made(byEngine[label], label) }));
}

// Chains of one engine share its colour; later ones are paler.
function lines(chains, label, point) {
  return chains.flatMap((chain, index) => {
    const pale = chains.length > 1 ? Math.round((60 * index) / (chains.length - 1)) : 0;
    const colour = `color-mix(in oklab, ${ink(label)}, var(--paper) ${pale}%)`;
    return chain.map((entry, at) => ({ ...point(entry, at), chain: index + 1, ink: colour }));
  });
}

function named(label) {
  return { engine: label, ink: ink(label), shape: SHAPES[engineIndex(label)] };
}

function drawnEngines(points) {
  return [...new Set(points.map(({ engine }) => engine))];
}

function least(points, key) {
  return points.reduce((least, point) => Math.min(least, point[key]), Infinity);
}

function most(points, key) {
  return points.reduce((most, point) => Math.max(most, point[key]), -Infinity);
}

// Drawing: a figure is hidden where it has no panels, and its panels are drawn one after another.

function prepare(name, made) {
  const figure = document.getElementById(`plot-${name}`);
  for (const chart of figure.querySelectorAll(".chart")) drawn.get(chart)?.();
  const places = made.map((panel) => {
    const place = element("div", "panel");
    const legend = element("p", "legend");
    legend.append(...(panel.labels ?? []).map((label) => legendEntry(label, panel.title ?? "")));
    const chart = element("div", "chart");
    place.append(...(panel.labels ? [legend] : []), chart);
    return { place, drawing: { chart, panel } };
  });
  figure.hidden = made.length === 0;
  figure.querySelector(".panels").replaceChildren(...places.map(({ place }) => place));
  return places.map(({ drawing }) => drawing);
}

function legendEntry(label, title) {
  const entry = element("span");
  entry.append(swatch(label), label + title);
  return entry;
}

function prepareRow(row) {
  const drawings = [
    ...prepare("densities", densityPanels(row)), ...prepare("traces", tracePanels(row)),
    ...prepare("ranks", rankPanels(row)), ...prepare("lineages", lineagePanels(row)),
  ];
  document.getElementById("row-plots").hidden = drawings.length === 0;
  return drawings;
}

// Between two drawings the page answers to its reader, who may by then have picked another row: what was replaced is
// not drawn.
async function drawAll(drawings) {
  for (const { chart, panel } of drawings) {
    if (chart.isConnected) await draw(chart, panel);
    await new Promise((done) => setTimeout(done));
  }
}

async function draw(chart, { plot, points, reference = [], ends = {} }) {
  const spec = { ...page.charts[plot], datasets: { points, reference } };
  spec.layer = spec.layer?.filter(({ data }) => !data || spec.datasets[data.name].length);
  spec.params = spec.params?.map((param) => ({ ...param, value: ends[param.name] ?? param.value }));
  const { finalize } = await vegaEmbed(chart, spec, EMBEDDING);
  if (chart.isConnected) drawn.set(chart, finalize);
  else finalize();
}
