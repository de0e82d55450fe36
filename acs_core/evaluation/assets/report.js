"use strict";
// The filter is in the address (#outcome=won&category=key&zoom=1&evaluation=2), so that a link shows what one saw.
const root = document.documentElement;
const sections = [...document.querySelectorAll("section.evaluation")];
const NAMES = ["outcome", "category", "group"];

function state() {
  return new URLSearchParams(location.hash.slice(1));
}

function change(name, value) {
  const wanted = state();
  if (value) wanted.set(name, value);
  else wanted.delete(name);
  const text = wanted.toString();
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  show();
}

function show() {
  const wanted = state();
  const number = sections.some((s) => s.dataset.evaluation === wanted.get("evaluation")) ? wanted.get("evaluation") : "1";
  for (const section of sections) {
    section.hidden = section.dataset.evaluation !== number;
    filter(section, wanted);
  }
  for (const tab of document.querySelectorAll(".tabs a")) {
    if (tab.dataset.evaluation === number) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
}

function filter(section, wanted) {
  const form = section.querySelector(".filter");
  if (!form) return;
  const zoomed = wanted.get("zoom") === "1";
  const cases = [...section.querySelectorAll(".case")];
  let left = 0;
  for (const item of cases) {
    item.hidden = NAMES.some((name) => wanted.get(name) && item.dataset[name] !== wanted.get(name));
    left += item.hidden ? 0 : 1;
    for (const picture of item.querySelectorAll("svg[data-zoom]")) {
      picture.setAttribute("viewBox", zoomed ? picture.dataset.zoom : picture.dataset.whole);
    }
  }
  for (const button of form.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.outcome === (wanted.get("outcome") || "")));
  }
  for (const name of ["category", "group"]) {
    const list = form.elements[name];
    if (list) list.value = [...list.options].some((o) => o.value === wanted.get(name)) ? wanted.get(name) : "";
  }
  form.elements.zoom.checked = zoomed;
  form.querySelector("output").textContent = left + " of " + cases.length + " pictures";
  section.querySelector(".none").hidden = left > 0;
}

for (const form of document.querySelectorAll(".filter")) {
  form.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) change("outcome", button.dataset.outcome);
  });
  form.addEventListener("change", (event) => {
    const field = event.target;
    change(field.name, field.type === "checkbox" ? (field.checked ? "1" : "") : field.value);
  });
  form.addEventListener("submit", (event) => event.preventDefault());
}
for (const tab of document.querySelectorAll(".tabs a")) {
  tab.addEventListener("click", (event) => {
    event.preventDefault();
    change("evaluation", tab.dataset.evaluation);
  });
}
window.addEventListener("hashchange", show);
window.addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});
root.classList.add("js");
show();
