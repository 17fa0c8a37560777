// The page of a comparison, on opening.

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

function explainColumns(place) {
  for (const button of document.querySelectorAll(".explained")) {
    const show = () => place.replaceChildren(element("strong", "", `${button.textContent}: `), button.dataset.help);
    for (const event of ["pointerenter", "focus", "click"]) button.addEventListener(event, show);
  }
}

function start() {
  followTheme(document.getElementById("theme"));
  explainColumns(document.getElementById("help"));
  listenToDraws();
  sayWhatScrolls();
  const general = [...chooseUnit(), ...prepare("evidence", evidencePanels())];
  const row = page.rows.length ? pick(0) : [];
  drawAll([...general, ...row, ...prepare("training", trainingPanels())])
    .then(() => { document.documentElement.dataset.drawn = "all"; });
}

start();
