"use strict";
const SVG = "http://www.w3.org/2000/svg";
const WAIT_MS = 2000, LONGEST_MS = 30000, KEPT = 400;
const by = (id) => document.getElementById(id);
let wait = WAIT_MS, shown = "";

function make(name, text, kind) {
  const node = document.createElement(name);
  if (text !== undefined) node.textContent = text;
  if (kind) node.className = kind;
  return node;
}
function drawn(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}
const percent = (v) => (v === null || v === undefined ? "-" : (100 * v).toFixed(1) + " %");
const number = (v, digits) => (v === null || v === undefined ? "-" : v.toFixed(digits));
const duration = (s) => (s < 100 ? s.toFixed(0) + " s" : s < 6000 ? (s / 60).toFixed(0) + " min" : (s / 3600).toFixed(1) + " h");

function curve(svg, epochs, value, interval, words) {
  const left = 46, right = 470, top = 10, bottom = 180, sides = ["train", "validation"];
  const points = {}, all = [];
  for (const side of sides) {
    points[side] = epochs.filter((e) => e[side] && value(e[side]) !== null).map((e) => [e.epoch, value(e[side]), side === "validation" ? interval(e[side]) : null]);
    for (const [, v, range] of points[side]) all.push(v, ...(range || []));
  }
  svg.replaceChildren();
  if (!all.length) return;
  const numbers = epochs.map((e) => e.epoch), first = Math.min(...numbers), last = Math.max(...numbers);
  const low = Math.min(...all), high = Math.max(...all);
  const x = (e) => (last > first ? left + ((e - first) / (last - first)) * (right - left) : (left + right) / 2);
  const y = (v) => (high > low ? bottom - ((v - low) / (high - low)) * (bottom - top) : (top + bottom) / 2);
  for (const v of high > low ? [low, (low + high) / 2, high] : [low]) {
    svg.append(drawn("line", { x1: left, x2: right, y1: y(v), y2: y(v), class: "axis" }));
    svg.append(drawn("text", { x: left - 5, y: y(v) + 4, "text-anchor": "end" }, words(v)));
  }
  for (const e of last > first ? [first, last] : [first]) svg.append(drawn("text", { x: x(e), y: 196, "text-anchor": "middle" }, String(e)));
  for (const side of sides) {
    const banded = points[side].filter((p) => p[2]);
    if (banded.length > 1) {
      const upper = banded.map((p) => x(p[0]) + "," + y(p[2][1])), lower = banded.map((p) => x(p[0]) + "," + y(p[2][0])).reverse();
      svg.append(drawn("polygon", { points: upper.concat(lower).join(" "), class: "band" }));
    }
    svg.append(drawn("polyline", { points: points[side].map((p) => x(p[0]) + "," + y(p[1])).join(" "), class: side }));
    for (const p of points[side].slice(-1)) svg.append(drawn("circle", { cx: x(p[0]), cy: y(p[1]), r: 3.5, class: side }));
  }
}

function rows(view) {
  const body = by("rows");
  body.replaceChildren();
  for (const e of view.epochs.slice(-KEPT).reverse()) {
    const t = e.train, v = e.validation, row = make("tr");
    const speed = t && t.images_per_second !== null ? t.images_per_second : v ? v.images_per_second : null;
    const range = v && v.accuracy ? percent(v.accuracy.low) + " .. " + percent(v.accuracy.high) : "-";
    const cells = [String(e.epoch), t ? number(t.loss, 4) : "-", t && t.accuracy ? percent(t.accuracy.value) : "-", v ? number(v.loss, 4) : "-",
      v && v.accuracy ? percent(v.accuracy.value) : "-", range, number(speed, 0), number((t ? t.seconds : 0) + (v ? v.seconds : 0), 1)];
    for (const text of cells) row.append(make("td", text));
    body.append(row);
  }
}

function time(view) {
  const box = by("time");
  box.replaceChildren();
  for (const side of ["train", "validation"]) {
    const last = view.epochs.filter((e) => e[side]).slice(-1)[0];
    const spent = last ? Object.entries(last[side].spent).filter(([, s]) => s > 0) : [];
    const whole = spent.reduce((sum, [, s]) => sum + s, 0);
    for (const [kind, seconds] of spent) {
      const line = make("div", undefined, "share"), meter = make("meter");
      line.append(make("span", (side === "train" ? "training: " : "validation: ") + kind + " " + percent(seconds / whole)));
      meter.value = seconds / whole;
      line.append(meter);
      box.append(line);
    }
  }
  if (!box.childElementCount) box.append(make("p", "The record does not tell.", "soft"));
}

function warnings(view) {
  const box = by("warnings");
  box.replaceChildren();
  for (const w of view.warnings) {
    const card = make("article"), why = make("ul");
    card.append(make("h2", w.code + " " + w.what));
    const when = w.epoch < 1 ? "in the first epoch" : "after epoch " + w.epoch;
    card.append(make("p", w.name + ", " + when + ", stage " + w.stage + ", " + Math.round(100 * w.confidence) + " % sure", "soft"));
    for (const line of w.why) why.append(make("li", line));
    card.append(why, make("p", "Remedy: " + w.remedy));
    box.append(card);
  }
  if (!view.warnings.length) box.append(make("p", "No warnings.", "soft"));
}

function show(view) {
  by("script").textContent = view.script;
  by("state").textContent = view.state + ", " + duration(view.seconds);
  by("state").className = view.state;
  by("told").textContent = view.told + "; recorded in " + view.path + (view.given === null ? "" : "; given " + view.given + " epochs");
  by("going").textContent = view.going ? "Under way: " + view.going : "";
  const rest = JSON.stringify([view.epochs, view.warnings, view.given]);
  if (rest === shown) return;
  shown = rest;
  document.title = view.script + " - valgap view";
  curve(by("accuracy"), view.epochs, (s) => (s.accuracy ? s.accuracy.value : null), (s) => (s.accuracy && s.accuracy.low !== undefined ? [s.accuracy.low, s.accuracy.high] : null), percent);
  curve(by("loss"), view.epochs, (s) => s.loss, () => null, (v) => v.toPrecision(3));
  rows(view); time(view); warnings(view);
}

async function follow() {
  let more = true;
  try {
    const answer = await fetch("state", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    const view = await answer.json();
    show(view);
    by("problem").hidden = true;
    wait = WAIT_MS;
    more = view.state === "running";
  } catch (error) {
    by("problem").textContent = "No answer: " + error.message;
    by("problem").hidden = false;
    wait = Math.min(2 * wait, LONGEST_MS);
  }
  setTimeout(follow, more ? wait : LONGEST_MS);
}
const given = by("given");
if (given) show(JSON.parse(given.textContent)); // in a frame that can ask nobody: whoever made it makes the next one
else follow();
