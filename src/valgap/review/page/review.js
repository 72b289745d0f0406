"use strict";
// The page keeps no state of its own: what counts is what the server has written down.
const $ = (id) => document.getElementById(id);
const state = { suspects: [], labels: [], at: 0, busy: Promise.resolve() };
const AHEAD = 4; // pictures that are loaded before they are needed

async function ask(place, body) {
  const answer = await fetch(place, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || "refused");
  return told;
}

function show() {
  const one = state.suspects[state.at];
  const done = state.suspects.filter((s) => s.decision).length;
  $("progress").textContent = `${state.at + 1} of ${state.suspects.length}, ${done} decided`;
  $("bar").max = Math.max(1, state.suspects.length);
  $("bar").value = done;
  if (!one) { $("what").textContent = "There is nothing to review."; return; }
  $("problem").hidden = true;
  $("picture").src = `image/${state.at}`;
  $("picture").alt = one.path;
  $("beside").hidden = !one.pair;
  if (one.pair) { $("beside").src = `image/${state.at}/beside`; $("beside").alt = "its copy"; } else { $("beside").removeAttribute("src"); }
  $("what").textContent = `${one.cause} ${one.name}` + (one.split ? `, in ${one.split}` : "") + (one.score ? `, score ${one.score.toFixed(2)}` : "");
  $("labels").textContent = (one.given ? `given ${one.given}` : "") + (one.likely ? `, likely ${one.likely}` : "") + (one.seen ? `, looks like: ${one.seen}` : "");
  $("path").textContent = one.path;
  $("decided").textContent = one.decision ? `decided: ${one.decision.kind}${one.decision.label ? " as " + one.decision.label : ""}` : "";
  for (const button of document.querySelectorAll("[data-do]")) button.classList.toggle("on", !!one.decision && button.dataset.do === one.decision.kind);
  for (let i = 1; i <= AHEAD; i++) if (state.at + i < state.suspects.length) new Image().src = `image/${state.at + i}`;
}

function move(to) { if (to >= 0 && to < state.suspects.length) { state.at = to; show(); } }

function open() {
  const order = [...state.suspects.keys()];
  const next = [...order.slice(state.at + 1), ...order.slice(0, state.at + 1)].find((i) => !state.suspects[i].decision);
  if (next !== undefined) move(next);
}

function fail(error) { $("problem").textContent = `not written down: ${error.message}`; $("problem").hidden = false; }

function decide(kind, label) {
  const number = state.at; // of this moment: answers may come after the next key
  if (!state.suspects.length) return;
  state.busy = state.busy.then(() => ask("decide", { number, kind, label: label || "" })).then((told) => {
    state.suspects[told.number].decision = told.decision;
    show();
  }).catch(fail);
  move(number + 1);
}

function undo() {
  state.busy = state.busy.then(() => ask("undo", {})).then((told) => {
    if (told.number === null) return;
    state.suspects[told.number].decision = told.decision;
    state.at = told.number;
    show();
  }).catch(fail);
}

function choices() {
  const typed = $("filter").value.toLowerCase();
  const found = state.labels.filter((name) => name.toLowerCase().includes(typed));
  $("choices").replaceChildren(...found.slice(0, 200).map((name, i) => {
    const row = document.createElement("li");
    row.textContent = name;
    row.setAttribute("role", "option");
    row.setAttribute("aria-selected", i === 0);
    row.addEventListener("click", () => choose(name));
    return row;
  }));
}

function relabel() {
  const one = state.suspects[state.at];
  if (!one) return;
  $("filter").value = "";
  $("chooser").showModal();
  choices();
  const rows = [...$("choices").children];
  const likely = rows.find((r) => r.textContent === one.likely);
  if (likely) { for (const r of rows) r.setAttribute("aria-selected", r === likely); likely.scrollIntoView({ block: "nearest" }); }
  $("filter").focus();
}

function choose(name) { $("chooser").close(); decide("relabel", name); }

$("filter").addEventListener("input", choices);
$("filter").addEventListener("keydown", (event) => {
  const rows = [...$("choices").children];
  const at = rows.findIndex((r) => r.getAttribute("aria-selected") === "true");
  if (event.key === "Enter") { event.preventDefault(); if (rows[at]) choose(rows[at].textContent); }
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && rows[at + step]) {
    event.preventDefault();
    rows[at].setAttribute("aria-selected", "false");
    rows[at + step].setAttribute("aria-selected", "true");
    rows[at + step].scrollIntoView({ block: "nearest" });
  }
});

const ACTS = {
  keep: () => decide("keep"), drop: () => decide("drop"), unsure: () => decide("unsure"), relabel, undo,
  previous: () => move(state.at - 1), next: () => move(state.at + 1), open,
};
const KEYS = { k: "keep", r: "relabel", d: "drop", u: "unsure", z: "undo", Backspace: "undo", ArrowLeft: "previous", ArrowRight: "next", n: "open" };

document.addEventListener("keydown", (event) => {
  if ($("chooser").open || event.ctrlKey || event.metaKey || event.altKey) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); ACTS[act](); }
});
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", () => ACTS[button.dataset.do]());
$("picture").addEventListener("error", () => { $("problem").textContent = "this picture cannot be drawn"; $("problem").hidden = false; });

fetch("suspects").then((answer) => answer.json()).then((told) => {
  Object.assign(state, told);
  const first = state.suspects.findIndex((s) => !s.decision);
  state.at = Math.max(0, first);
  show();
});
