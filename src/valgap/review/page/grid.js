"use strict";
// Tens of suspects of one class or cause at once. Only what is seen can be decided: a page is as large as the window.
const LEAST = 6, MOST_TOGETHER = 96, MOST_GROUPS = 500;
const grid = { groups: [], group: null, first: 0, per: 0, cells: [], taken: new Set(), at: 0, from: -1, drawn: "" };

// Groups of numbers: by given and likely class, by cause, by given class, and all; the largest of a kind first.
function groupAll() {
  const kinds = [
    ["Given and likely class", (s) => (s.given && s.likely ? `${s.given} \u2192 ${s.likely}` : null)],
    ["Cause", (s) => `${s.cause} ${s.name}`], ["Given class", (s) => s.given || null], ["All", () => "all"],
  ];
  grid.groups = [];
  $("cells").classList.toggle("bare", !state.suspects.some((s) => s.pair || s.near.given.length || s.near.likely.length));
  for (const [kind, key] of kinds) {
    const found = new Map();
    state.suspects.forEach((s, i) => {
      const name = key(s);
      if (name !== null) { if (!found.has(name)) found.set(name, []); found.get(name).push(i); }
    });
    const box = make("optgroup");
    box.label = kind;
    for (const [name, numbers] of [...found].sort((a, b) => b[1].length - a[1].length).slice(0, MOST_GROUPS)) {
      const option = make("option", "", `${name} (${numbers.length})`);
      option.value = grid.groups.length;
      box.append(option);
      grid.groups.push({ kind, numbers });
    }
    if (box.childElementCount) $("group").append(box);
  }
  grid.group = grid.groups.find((g) => g.numbers.some((i) => !state.suspects[i].decision)) || grid.groups[0] || { numbers: [] };
  $("group").addEventListener("change", () => { choosePage(grid.groups[$("group").value], 0); show(); $("cells").focus(); });
}

const shown = () => grid.group.numbers.slice(grid.first, grid.first + grid.per);
// What is on its way to the server is not asked about again.
const undecided = (numbers) => numbers.filter((i) => !state.suspects[i].decision && !state.sent.has(i));

// How many cells fit into the window: a first cell is drawn to be measured.
function fit() {
  const box = $("cells"), cell = grid.cells[0] || newCell(0);
  cell.hidden = false;
  const columns = getComputedStyle(box).gridTemplateColumns.split(" ").length;
  const room = window.innerHeight - box.getBoundingClientRect().top - window.scrollY - $("buttons").offsetHeight - 16;
  const rows = Math.max(1, Math.floor(room / (cell.offsetHeight + 6)));
  grid.columns = columns;
  grid.per = Math.min(MOST_TOGETHER, Math.max(LEAST, columns * rows));
}

function newCell(place) {
  const cell = make("div", "cell"), strip = make("div", "strip");
  cell.setAttribute("role", "option");
  for (const parent of [cell, strip, strip]) { const picture = make("img"); picture.alt = ""; picture.draggable = false; picture.decoding = "async"; parent.append(picture); }
  cell.append(strip, make("p"), make("b"));
  cell.addEventListener("click", (event) => toggle(place, event.shiftKey));
  cell.addEventListener("dblclick", () => { focusOn(place); change(); });
  cell.addEventListener("mouseenter", () => look(place));
  $("cells").append(cell);
  grid.cells.push(cell);
  return cell;
}

function choosePage(group, first) {
  Object.assign(grid, { group, first, at: 0, from: -1 });
  grid.taken = new Set(undecided(shown()));
}

// The page on which these numbers are, in the group that is open or else in the first that has them; taken are all undecided ones.
function turnTo(numbers) {
  if (!grid.per) { $("many").hidden = false; document.body.classList.add("grid"); fit(); }
  const group = grid.group.numbers.includes(numbers[0]) ? grid.group : grid.groups.find((g) => g.numbers.includes(numbers[0]));
  if (!group) return;
  const place = group.numbers.indexOf(numbers[0]);
  choosePage(group, place - (place % grid.per));
  grid.at = place % grid.per;
}

function showGrid() {
  const before = grid.per;
  fit();
  if (before !== grid.per) { grid.first -= grid.first % grid.per; grid.taken = new Set(undecided(shown())); }
  $("group").value = grid.groups.indexOf(grid.group);
  const numbers = shown(), total = grid.group.numbers.length;
  while (grid.cells.length < numbers.length) newCell(grid.cells.length);
  grid.cells.forEach((cell, i) => { cell.hidden = i >= numbers.length; if (i < numbers.length) draw(cell, numbers[i], i); });
  const left = undecided(grid.group.numbers).length;
  $("page").textContent = `${total ? grid.first + 1 : 0} to ${grid.first + numbers.length} of ${total}, ${total - left} decided; ${grid.taken.size} outlined`;
  for (const button of document.querySelectorAll("[data-do]")) {
    button.classList.remove("on");
    if (button.querySelector("b")) button.querySelector("b").textContent = grid.taken.size ? String(grid.taken.size) : "";
  }
  look(grid.at);
  ahead();
}

function set(picture, address) { if (picture.getAttribute("src") !== address) { if (address) picture.src = address; else picture.removeAttribute("src"); } }

function draw(cell, number, place) {
  const one = state.suspects[number], [picture, strip, text, mark] = cell.children;
  set(picture, `image/${number}/small`);
  picture.alt = one.path;
  set(strip.children[0], one.pair ? `beside/${number}/small` : one.near.given.length ? `known/${one.near.given[0]}/small` : null);
  set(strip.children[1], one.near.likely.length ? `known/${one.near.likely[0]}/small` : null);
  text.textContent = one.given && one.likely ? `${one.given} \u2192 ${one.likely}` : one.given || one.path;
  mark.textContent = verdict(one.decision);
  cell.title = `${about(one)}\n${one.path}`;
  cell.classList.toggle("made", !!one.decision);
  cell.classList.toggle("at", place === grid.at);
  cell.setAttribute("aria-selected", grid.taken.has(number));
}

// The suspect under the mouse or in focus, larger, with its neighbours.
function look(place) {
  const number = shown()[place], one = state.suspects[number];
  if (!one) { $("focused").replaceChildren(); $("focused").number = -1; return; }
  if ($("focused").number === number) return;
  $("focused").number = number;
  const picture = make("img");
  picture.src = `image/${number}`;
  picture.alt = one.path;
  const parts = [picture];
  if (one.pair) { const copy = make("img"); copy.src = `beside/${number}`; copy.alt = "its copy"; parts.push(make("h2", "", "Its copy"), copy); }
  $("focused").replaceChildren(...parts, make("p", "", about(one)), make("p", "", one.seen ? `looks like: ${one.seen}` : ""), make("p", "", one.path), ...neighbours(one));
}

// The next page's pictures are there before it is.
function ahead() {
  const next = grid.first + grid.per, key = `${grid.groups.indexOf(grid.group)} ${next}`;
  if (grid.drawn === key) return;
  grid.drawn = key;
  const ask = () => { for (const i of grid.group.numbers.slice(next, next + grid.per)) new Image().src = `image/${i}/small`; };
  if ("requestIdleCallback" in window) requestIdleCallback(ask, { timeout: 1000 }); else setTimeout(ask, 300);
}

function focusOn(place) {
  const last = grid.at;
  grid.at = Math.max(0, Math.min(place, shown().length - 1));
  state.at = shown()[grid.at] ?? state.at;
  for (const i of [last, grid.at]) if (grid.cells[i]) grid.cells[i].classList.toggle("at", i === grid.at);
  look(grid.at);
}

function toggle(place, range) {
  const numbers = shown(), take = !grid.taken.has(numbers[place]);
  const from = range && grid.from >= 0 ? grid.from : place;
  for (let i = Math.min(from, place); i <= Math.max(from, place); i++) if (take) grid.taken.add(numbers[i]); else grid.taken.delete(numbers[i]);
  grid.from = place;
  focusOn(place);
  showGrid();
}

function turn(pages) {
  const first = grid.first + pages * grid.per;
  if (first >= 0 && first < grid.group.numbers.length) { choosePage(grid.group, first); focusOn(0); showGrid(); }
}

// The next page of this group, or the next group of its kind, where something is undecided.
function openMany() {
  const { numbers, kind } = grid.group, here = grid.groups.indexOf(grid.group);
  const open = new Set(undecided(numbers)), later = [...numbers.keys()].filter((i) => open.has(numbers[i]));
  const place = later.find((i) => i >= grid.first + grid.per) ?? later.find((i) => i < grid.first);
  if (place !== undefined) choosePage(grid.group, place - (place % grid.per));
  else {
    const order = [...grid.groups.slice(here + 1), ...grid.groups.slice(0, here)];
    const group = order.find((g) => g.kind === kind && undecided(g.numbers).length);
    if (!group || later.length) return;
    const next = group.numbers.indexOf(undecided(group.numbers)[0]);
    choosePage(group, next - (next % grid.per));
  }
  focusOn(0);
  showGrid();
}

function decideMany(kind, label) {
  const numbers = shown().filter((i) => grid.taken.has(i));
  if (!numbers.length) { fail("nothing is outlined: click images, or press a"); return; }
  send("decide", { numbers, kind, label: label === undefined ? (kind === "relabel" ? null : "") : label }, () => {});
  grid.taken = new Set(undecided(shown())); // at once: the next key may come before the answer
  if (!grid.taken.size) openMany();
  show();
}

function relabelMany() {
  const numbers = shown().filter((i) => grid.taken.has(i));
  if (numbers.length && numbers.every((i) => state.labels.includes(state.suspects[i].likely))) decideMany("relabel");
  else if (numbers.length) relabelAs();
}

function relabelAs() { if (grid.taken.size) { state.at = shown().find((i) => grid.taken.has(i)) ?? state.at; relabel(); } }

function all() {
  const numbers = shown();
  grid.taken = new Set(numbers.every((i) => grid.taken.has(i)) ? [] : numbers);
  showGrid();
}

const GRID_ACTS = {
  relabel: relabelMany, relabelAs, all, open: openMany, look: () => { focusOn(grid.at); change(); }, take: (event) => toggle(grid.at, event.shiftKey),
  previous: () => focusOn(grid.at - 1), next: () => focusOn(grid.at + 1), up: () => focusOn(grid.at - grid.columns), down: () => focusOn(grid.at + grid.columns),
  back: () => turn(-1), forth: () => turn(1), strips: () => { $("cells").classList.toggle("bare"); grid.per = 0; showGrid(); },
};
const GRID_KEYS = { R: "relabelAs", a: "all", " ": "take", Enter: "look", ArrowUp: "up", ArrowDown: "down", PageUp: "back", PageDown: "forth", "[": "back", "]": "forth", b: "strips" };
window.addEventListener("resize", () => { if (state.grid) showGrid(); });
