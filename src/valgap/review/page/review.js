"use strict";
// The page keeps no state of its own: what counts is what the server has written down.
const $ = (id) => document.getElementById(id);
const state = { suspects: [], labels: [], at: 0, done: 0, grid: false, sent: new Set(), busy: Promise.resolve() };
const UNWRITTEN = "not written down";
const AHEAD = 4; // pictures that are loaded before they are needed

function make(name, kind, text) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
}

async function ask(place, body) {
  const answer = await fetch(place, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
  const told = await answer.json();
  if (!answer.ok) throw new Error(told.error || "refused");
  return told;
}

// What was decided or taken back, in the order in which keys were pressed; `after` is told the numbers.
function send(place, body, after) {
  const sent = body.numbers || [];
  for (const number of sent) state.sent.add(number);
  state.busy = state.busy.then(() => ask(place, body)).then((told) => {
    for (const [number, decision] of told.decided) {
      const one = state.suspects[number];
      state.done += !!decision - !!one.decision;
      one.decision = decision;
      state.sent.delete(number);
    }
    if ($("problem").textContent.startsWith(UNWRITTEN)) $("problem").hidden = true;
    after(told.decided.map(([number]) => number));
    show();
  }).catch((error) => {
    for (const number of sent) state.sent.delete(number);
    fail(`${UNWRITTEN}: ${error.message}`);
  });
}

function fail(text) { $("problem").textContent = text; $("problem").hidden = false; }

const verdict = (d) => (d ? d.kind + (d.label ? ` as ${d.label}` : "") : "");
const about = (one) => `${one.cause} ${one.name}` + (one.split ? `, in ${one.split}` : "") + (one.score ? `, score ${one.score.toFixed(2)}` : "");

// The nearest sure images of both classes, as headed rows of pictures.
function neighbours(one) {
  const parts = [];
  for (const side of ["given", "likely"]) {
    if (!one.near[side].length) continue;
    const few = make("div", "few");
    for (const place of one.near[side]) {
      const picture = make("img");
      picture.src = `known/${place}/small`;
      picture.alt = `sure ${one[side]}`;
      few.append(picture);
    }
    parts.push(make("h2", "", `Sure images of ${side === "given" ? "the given class" : "the likely class"}: ${one[side]}`), few);
  }
  return parts;
}

function show() {
  const all = state.suspects.length;
  $("progress").textContent = state.grid ? `${state.done} of ${all} decided` : `${all ? state.at + 1 : 0} of ${all}, ${state.done} decided`;
  $("bar").max = Math.max(1, all);
  $("bar").value = state.done;
  document.body.classList.toggle("grid", state.grid);
  $("one").hidden = state.grid;
  $("many").hidden = !state.grid;
  $("relabels").textContent = state.grid ? "relabel as likely" : "relabel";
  $("switch").lastChild.textContent = state.grid ? " one by one" : " grid";
  if (state.grid) showGrid(); else showOne();
}

function showOne() {
  const one = state.suspects[state.at];
  for (const button of document.querySelectorAll("[data-do] b")) button.textContent = "";
  if (!one) { $("what").textContent = "There is nothing to review."; return; }
  closeUp(one, state.at);
  $("what").textContent = about(one);
  $("labels").textContent = (one.given ? `given ${one.given}` : "") + (one.likely ? `, likely ${one.likely}` : "") + (one.seen ? `, looks like: ${one.seen}` : "");
  $("path").textContent = one.path;
  $("decided").textContent = one.decision ? `decided: ${verdict(one.decision)}` : "";
  if ($("near").shown !== one) { $("near").replaceChildren(...neighbours(one)); $("near").shown = one; }
  $("near").hidden = !$("near").childElementCount;
  for (const button of document.querySelectorAll("[data-do]")) button.classList.toggle("on", !!one.decision && button.dataset.do === one.decision.kind);
  for (let i = 1; i <= AHEAD; i++) if (state.at + i < state.suspects.length) new Image().src = `image/${state.at + i}`;
}

function move(to) { if (to >= 0 && to < state.suspects.length) { state.at = to; $("problem").hidden = true; show(); } }

function open() {
  const order = [...state.suspects.keys()];
  const next = [...order.slice(state.at + 1), ...order.slice(0, state.at + 1)].find((i) => !state.suspects[i].decision);
  if (next !== undefined) move(next);
}

function decide(kind, label) {
  if (state.grid) { decideMany(kind, label); return; }
  const number = state.at; // of this moment: answers may come after the next key
  if (!state.suspects.length) return;
  send("decide", { numbers: [number], kind, label: label || "" }, () => {});
  move(number + 1);
}

function undo() {
  send("undo", {}, (numbers) => {
    if (!numbers.length) return;
    state.at = Math.min(...numbers);
    if (state.grid) turnTo(numbers);
  });
}

function choices() {
  const typed = $("filter").value.toLowerCase();
  const found = state.labels.filter((name) => name.toLowerCase().includes(typed));
  $("choices").replaceChildren(...found.slice(0, 200).map((name, i) => {
    const row = make("li", "", name);
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

function change() {
  state.grid = !state.grid;
  history.replaceState(null, "", state.grid ? "#grid" : "#");
  if (state.grid) turnTo([state.at]);
  show();
}

const ACTS = {
  keep: () => decide("keep"), drop: () => decide("drop"), unsure: () => decide("unsure"), relabel, undo, grid: change,
  previous: () => move(state.at - 1), next: () => move(state.at + 1), open, closer: () => zoom(1), farther: () => zoom(-1), whole: () => zoom(0),
};
const KEYS = {
  k: "keep", r: "relabel", d: "drop", u: "unsure", z: "undo", g: "grid", Backspace: "undo", ArrowLeft: "previous", ArrowRight: "next", n: "open",
  "+": "closer", "=": "closer", "-": "farther", "0": "whole",
};
const acts = () => (state.grid ? { ...ACTS, ...GRID_ACTS } : ACTS);

document.addEventListener("keydown", (event) => {
  if ($("chooser").open || event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
  const keys = state.grid ? { ...KEYS, ...GRID_KEYS } : KEYS;
  if (["Enter", " "].includes(event.key) && event.target.tagName === "BUTTON") return; // the button's own
  const act = keys[event.key] || keys[event.key.length === 1 ? event.key.toLowerCase() : ""];
  if (act && acts()[act]) { event.preventDefault(); acts()[act](event); }
});
for (const button of document.querySelectorAll("[data-do]")) button.addEventListener("click", (event) => { const act = acts()[button.dataset.do]; if (act) act(event); });

document.addEventListener("DOMContentLoaded", () => fetch("suspects").then((answer) => answer.json()).then((told) => {
  Object.assign(state, told);
  state.done = state.suspects.filter((s) => s.decision).length;
  state.at = Math.max(0, state.suspects.findIndex((s) => !s.decision));
  state.grid = location.hash === "#grid";
  groupAll();
  show();
}).catch((error) => fail(`No answer: ${error.message}`)));
