// The draws of one row: a column an engine, what a search leaves of them, and a closer look at one.

const REFERENCE = "(reference)";
const HINT = "Hover, focus or tap a text to see which of its factors and tokens make it probable.";
const FAINTEST = -8; // nats: tokens below are shaded alike
let texts = []; // those of the row that is shown

function showDraws(row) {
  texts = row.texts ?? [];
  document.getElementById("draws").hidden = texts.length === 0;
  const heaviest = Math.max(...texts.flatMap((text) => [text.reference ?? 0, ...Object.values(text.mass)]), 1e-9);
  const shown = page.engines.map((engine) => engine.label).filter((label) => texts.some((text) => text.mass[label] > 0));
  const labels = texts.some((text) => text.reference > 0) ? [REFERENCE, ...shown] : shown;
  document.getElementById("columns").replaceChildren(...labels.map((label) => column(row, label, heaviest)));
  document.getElementById("detail").replaceChildren(element("p", "note", HINT));
  search();
}

function massOf(text, label) {
  return (label === REFERENCE ? text.reference : text.mass[label]) ?? 0;
}

function column(row, label, heaviest) {
  const made = element("section", "column");
  const heading = element("h3");
  heading.append(swatch(label), label === REFERENCE ? "reference" : label);
  const list = element("ol");
  const ordered = texts.map((text, index) => [index, massOf(text, label)]).filter(([, mass]) => mass > 0);
  list.append(...ordered.sort((one, other) => other[1] - one[1]).map(([index, mass]) => item(label, index, mass, heaviest)));
  made.append(heading, element("p", "matches control"), list);
  const hidden = row.hidden?.[label];
  if (hidden?.texts > 0) {
    const rest = `and ${number(hidden.texts, 0)} more texts, of mass ${share(hidden.mass)}`;
    made.append(element("p", "note", rest));
  }
  return made;
}

function item(label, index, mass, heaviest) {
  const text = texts[index];
  const entry = element("li");
  const button = element("button", "draw");
  button.type = "button";
  button.dataset.text = index;
  button.dataset.mass = mass;
  button.append(massBar(label, mass, text.reference, heaviest), valuesOf(text));
  entry.append(button);
  return entry;
}

function massBar(label, mass, reference, heaviest) {
  const bar = element("span", `mass ${engineClass(label)}`);
  bar.style.setProperty("--share", `${(100 * mass) / heaviest}%`);
  bar.append(element("span", "number", share(mass)), element("span", "bar"));
  if (reference !== null && label !== REFERENCE) {
    bar.style.setProperty("--reference", `${(100 * reference) / heaviest}%`);
    bar.lastChild.classList.add("compared");
  }
  return bar;
}

function valuesOf(text) {
  const values = element("span", "values");
  const names = Object.keys(text.values);
  for (const name of names) {
    const value = element("span", "value");
    if (names.length > 1) value.append(element("span", "name", name));
    const body = element("span", "text");
    const written = text.values[name];
    body.append(written === null ? element("span", "unseen", "(absent)") : visible(String(written)));
    value.append(body);
    values.append(value);
  }
  return values;
}

// Searching: all columns at once. What is left has a mass, an engine's estimate of how probable the search is.

function search() {
  const wanted = document.getElementById("search").value.toLowerCase();
  const fits = texts.map((text) => Object.values(text.values).some((value) => String(value ?? "").toLowerCase().includes(wanted)));
  for (const made of document.querySelectorAll(".column")) {
    let mass = 0;
    for (const button of made.querySelectorAll(".draw")) {
      button.parentElement.hidden = !fits[button.dataset.text];
      if (fits[button.dataset.text]) mass += Number(button.dataset.mass);
    }
    made.querySelector(".matches").textContent = wanted ? `these have mass ${share(mass)}` : "";
  }
  const left = fits.filter(Boolean).length;
  document.getElementById("found").textContent = wanted ? `${left} of ${texts.length} texts` : `${texts.length} texts`;
}

// A closer look: masses by engine, log density by factor, log probability by token.

function inspect(button) {
  const text = texts[button.dataset.text];
  for (const other of document.querySelectorAll(".draw")) {
    other.classList.toggle("looked-at", other.dataset.text === button.dataset.text);
  }
  const parts = [valuesOf(text), factorTable(text)];
  for (const [name, tokens] of Object.entries(text.tokens ?? {})) parts.push(tokenLine(name, tokens));
  document.getElementById("detail").replaceChildren(...parts);
}

function factorTable(text) {
  const table = element("dl", "factors");
  const entries = [["log density", text.log_density], ...Object.entries(text.factors ?? {})];
  for (const [name, value] of entries) {
    const pair = element("div");
    pair.append(element("dt", "", name), element("dd", "", number(value, 2)));
    table.append(pair);
  }
  return table;
}

function tokenLine(name, tokens) {
  const line = element("p", "tokens");
  line.append(element("span", "name", `${name} by token, in nats`));
  for (const [text, value] of tokens) {
    const token = element("span", "token");
    const sign = element("span", "text");
    sign.append(visible(text, "all"));
    token.append(sign, element("small", "", number(value, 1)));
    token.style.setProperty("--surprise", `${value === null ? 100 : Math.round((100 * Math.max(value, FAINTEST)) / FAINTEST)}%`);
    line.append(token);
  }
  return line;
}
