// What the other scripts share: the document, and elements made without markup, so that text stays text.

const page = JSON.parse(document.getElementById("document").textContent);
const SHAPES = ["circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left"];
const SHAPELESS = "\\u0000-\\u001f\\u007f-\\u009f\\u200b\\u200e\\u200f\\u2028-\\u202e\\u2060-\\u206f\\ufeff";
const UNSEEN = { all: new RegExp(`([ ${SHAPELESS}])`), outer: new RegExp(`(^ +| +$|[${SHAPELESS}])`) };

function element(tag, className = "", text = null) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== null) made.textContent = text;
  return made;
}

// An engine has one colour and one shape everywhere; the style knows the same eight. The reference has none.
function engineIndex(label) {
  const index = page.engines.findIndex((engine) => engine.label === label);
  return index < 0 ? null : index % 8;
}

function engineClass(label) {
  return engineIndex(label) === null ? "" : `engine-${engineIndex(label)}`;
}

function ink(label) {
  return engineIndex(label) === null ? "var(--weak)" : `var(--engine-${engineIndex(label)})`;
}

function swatch(label) {
  const made = element("span", `swatch ${engineClass(label)}`);
  return made;
}

function number(value, digits) {
  if (value === null || value === undefined) return "–";
  const text = value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return text.replace("-", /[1-9]/.test(text) ? "−" : "");
}

// A share as it is read: what is there but rounds to nothing is said to be small.
function share(value) {
  return value > 0 && value < 0.0005 ? "<0.001" : number(value, 3);
}

// A model's text as nodes: signs without a shape are shown, spaces at its ends too, or all of them.
function visible(text, which = "outer") {
  const nodes = document.createDocumentFragment();
  text.split(UNSEEN[which]).forEach((part, index) => {
    nodes.append(index % 2 ? element("span", "unseen", sign(part)) : part);
    if (part === "\n" && which === "outer") nodes.append("\n");
  });
  return text === "" ? element("span", "unseen", "(empty)") : nodes;
}

function sign(part) {
  if (part[0] === " ") return "·".repeat(part.length);
  return { "\n": "↵", "\t": "⇥" }[part] ?? `\\u${part.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
