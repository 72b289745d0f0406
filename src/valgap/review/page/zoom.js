"use strict";
// One suspect, and its copy beside it, from near: both are moved and enlarged alike, so that the same place shows in both.
const MOST = 12, STEP = 1.5;
const view = { number: -1, scale: 1, x: 0, y: 0 };

function closeUp(one, number) {
  if (view.number === number) return;
  Object.assign(view, { number, scale: 1, x: 0, y: 0 });
  $("picture").src = `image/${number}`;
  $("picture").alt = one.path;
  $("copy").hidden = !one.pair;
  if (one.pair) { $("beside").src = `beside/${number}`; $("beside").alt = "its copy"; } else { $("beside").removeAttribute("src"); }
  for (const picture of [$("picture"), $("beside")]) picture.style.width = "";
  place();
}

function place() {
  for (const picture of [$("picture"), $("beside")]) picture.style.transform = view.scale > 1 ? `translate(${view.x}px, ${view.y}px) scale(${view.scale})` : "";
  $("stage").classList.toggle("closer", view.scale > 1);
  if (view.scale <= 1 || view.number < 0) return;
  for (const [picture, kind] of [[$("picture"), "image"], [$("beside"), "beside"]]) {
    const large = `${kind}/${view.number}/large`;
    if (picture.getAttribute("src") === `${kind}/${view.number}`) { // drawn as it is until the larger one is there
      const next = new Image();
      next.onload = () => { if (picture.getAttribute("src") === large.replace("/large", "")) { picture.style.width = `${picture.clientWidth}px`; picture.src = large; } };
      next.src = large;
    }
  }
}

// `how`: 1 closer, -1 farther, 0 whole; around a point given from the middle of a picture.
function zoom(how, x = 0, y = 0) {
  if (state.grid) { if (how > 0) { change(); zoom(1); } return; }
  const scale = how === 0 ? 1 : Math.min(MOST, Math.max(1, view.scale * STEP ** how)), ratio = scale / view.scale;
  Object.assign(view, { scale, x: scale > 1 ? x + (view.x - x) * ratio : 0, y: scale > 1 ? y + (view.y - y) * ratio : 0 });
  place();
}

$("stage").addEventListener("wheel", (event) => {
  event.preventDefault();
  const pane = (event.target.closest("#stage > div") || $("stage").firstElementChild).getBoundingClientRect();
  zoom(event.deltaY < 0 ? 1 : -1, event.clientX - pane.left - pane.width / 2, event.clientY - pane.top - pane.height / 2);
}, { passive: false });
$("stage").addEventListener("dblclick", () => zoom(view.scale > 1 ? 0 : 2));
$("stage").addEventListener("pointerdown", (event) => { if (view.scale > 1) { $("stage").setPointerCapture(event.pointerId); view.drag = [event.clientX - view.x, event.clientY - view.y]; } });
$("stage").addEventListener("pointermove", (event) => { if (view.drag) { view.x = event.clientX - view.drag[0]; view.y = event.clientY - view.drag[1]; place(); } });
for (const name of ["pointerup", "pointercancel"]) $("stage").addEventListener(name, () => { view.drag = null; });
for (const name of ["picture", "beside"]) $(name).addEventListener("error", () => fail("this picture cannot be drawn"));
