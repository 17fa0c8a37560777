// What happens on opening, and on each touch of a control.

function pick(number) {
  for (const picker of document.querySelectorAll(".row-picker")) picker.value = number;
  const row = page.rows[number];
  for (const place of document.querySelectorAll(".givens")) place.replaceChildren(...givensOf(row));
  showDraws(row);
  return prepareRow(row);
}

function givensOf(row) {
  return Object.entries(row.givens).map(([name, value]) => {
    const pair = element("div");
    const text = element("dd", "text");
    text.append(visible(String(value ?? "–")));
    pair.append(element("dt", "", name), text);
    return pair;
  });
}

function chooseUnit() {
  const units = ["tokens", "seconds"].filter((unit) => qualityPanels(unit).length);
  const chosen = units.includes(page.budget?.unit) ? page.budget.unit : units[0];
  const buttons = [...document.querySelectorAll("input[name=unit]")];
  for (const button of buttons) {
    button.checked = button.value === chosen;
    button.addEventListener("change", () => drawAll(prepare("quality", qualityPanels(button.value))));
  }
  document.querySelector(".units").hidden = units.length < 2;
  return prepare("quality", chosen ? qualityPanels(chosen) : []);
}

function followTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const name = () => { button.textContent = dark() ? "Light" : "Dark"; };
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    name();
  });
  system.addEventListener("change", name);
  name();
}

function explainColumns(place) {
  for (const button of document.querySelectorAll(".explained")) {
    const show = () => place.replaceChildren(element("strong", "", `${button.textContent}: `), button.dataset.help);
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, show);
  }
}

function lookCloser(columns) {
  for (const event of ["pointerover", "focusin", "click"]) {
    columns.addEventListener(event, ({ target }) => {
      const button = target.closest?.(".draw");
      if (button) inspect(button);
    });
  }
}

function start() {
  followTheme(document.getElementById("theme"));
  explainColumns(document.getElementById("help"));
  lookCloser(document.getElementById("columns"));
  document.getElementById("search").addEventListener("input", search);
  for (const picker of document.querySelectorAll(".row-picker")) {
    picker.addEventListener("change", () => drawAll(pick(picker.value)));
  }
  const general = [...chooseUnit(), ...prepare("evidence", evidencePanels())];
  const row = page.rows.length ? pick(0) : [];
  drawAll([...general, ...row, ...prepare("training", trainingPanels())])
    .then(() => { document.documentElement.dataset.drawn = "all"; });
}

start();
