// What both kinds of page do on opening, and on each touch of a control.

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

function lookCloser(columns) {
  for (const event of ["pointerover", "focusin", "click"]) {
    columns.addEventListener(event, ({ target }) => {
      const button = target.closest?.(".draw");
      if (button) inspect(button);
    });
  }
}

function listenToDraws() {
  lookCloser(document.getElementById("columns"));
  document.getElementById("search").addEventListener("input", search);
  for (const picker of document.querySelectorAll(".row-picker")) {
    picker.addEventListener("change", () => drawAll(pick(picker.value)));
  }
}

// What is wider than its place says so, as long as it is.
function sayWhatScrolls() {
  for (const place of document.querySelectorAll(".scroll")) {
    const hint = element("p", "hint control", "Wider than the page: scroll it sideways →");
    place.before(hint);
    const tell = () => {
      hint.hidden = place.scrollWidth <= place.clientWidth + 1;
      place.classList.toggle("scrolls", !hint.hidden);
    };
    new ResizeObserver(tell).observe(place);
    tell();
  }
}
