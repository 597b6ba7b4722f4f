// What pages do in a browser with JavaScript. They work without it as well.
"use strict";

// Copy buttons are hidden where there is no JavaScript.
function showCopyButtons(root) {
  for (const button of root.querySelectorAll("button[data-copy], button[data-copy-from]")) button.hidden = false;
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy], button[data-copy-from]");
  if (!button) return;
  const from = button.dataset.copyFrom && document.getElementById(button.dataset.copyFrom);
  const text = from ? from.textContent : button.dataset.copy;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and copy";
  }
  setTimeout(() => { button.textContent = label; }, 2000);
});

// The slash key goes to the search field.
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const search = document.querySelector("input[type=search]");
  if (search) { event.preventDefault(); search.focus(); }
});

function countDown(root) {
  for (const place of root.querySelectorAll("[data-countdown]")) {
    let left = Number(place.dataset.countdown);
    const timer = setInterval(() => {
      left -= 1;
      place.textContent = String(Math.max(0, left));
      if (left <= 0) clearInterval(timer);
    }, 1000);
  }
}

// A form that takes long says so, and is sent once. Its button is disabled after its value was taken.
document.addEventListener("submit", (event) => {
  const button = event.submitter;
  if (!button || !button.dataset.busy) return;
  setTimeout(() => { button.disabled = true; button.textContent = button.dataset.busy; });
});

// Boxes of a table: one ticks them all.
document.addEventListener("change", (event) => {
  const all = event.target.closest("input[data-all]");
  if (!all) return;
  for (const box of all.form.querySelectorAll(`input[name="${all.dataset.all}"]`)) box.checked = all.checked;
});

function prepare(root) {
  showCopyButtons(root);
  countDown(root);
  for (const box of root.querySelectorAll("input[data-all]")) box.hidden = false;
  const problem = root.querySelector(".problem[role=alert]");
  if (problem) problem.focus();
}

prepare(document);
document.addEventListener("htmx:after:swap", (event) => prepare(event.target instanceof Element ? event.target : document));
