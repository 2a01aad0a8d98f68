// The tooltip of the marks, by pointer and by keyboard.

const tip = document.getElementById("tip");
const markOf = (target) => (target instanceof Element ? target.closest("mark[tabindex]") : null);
const marksOf = (answer) => [...answer.querySelectorAll("mark[tabindex]")].filter((mark) => mark.checkVisibility());

// One Tab stop an answer: the mark that had the focus last, or the first one that is seen.
export function setTabStop(answer) {
  const stop = answer.querySelector('mark[tabindex="0"]');
  if (stop?.checkVisibility()) return;
  if (stop) stop.tabIndex = -1;
  const seen = [...answer.querySelectorAll("mark[tabindex]")].find((mark) => mark.checkVisibility());
  if (seen) seen.tabIndex = 0;
}

function show(mark) {
  hide();
  tip.textContent = mark.dataset.tip;
  tip.hidden = false;
  mark.setAttribute("aria-describedby", "tip");
  const place = [...mark.getClientRects()].find((rect) => rect.width) ?? mark.getBoundingClientRect();
  const left = Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = place.top - tip.offsetHeight;
  tip.style.left = `${Math.max(left, 8) + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : place.bottom) + scrollY}px`;
}

function hide() {
  tip.hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
}

// The arrow keys go from mark to mark within an answer, and from correction to correction.
function move(event) {
  const mark = markOf(event.target);
  if (!mark) return;
  const marks = marksOf(mark.closest(".answer"));
  const corrected = marks.filter((other) => other.classList.contains("corrected"));
  const here = marks.indexOf(mark);
  const target = {
    ArrowLeft: () => marks[here - 1],
    ArrowRight: () => marks[here + 1],
    ArrowUp: () => corrected.findLast((other) => marks.indexOf(other) < here),
    ArrowDown: () => corrected.find((other) => marks.indexOf(other) > here),
    Home: () => marks[0],
    End: () => marks.at(-1),
  }[event.key];
  if (!target) return;
  event.preventDefault();
  target()?.focus();
}

function takeFocus(event) {
  const mark = markOf(event.target);
  if (!mark) return;
  for (const other of mark.closest(".answer").querySelectorAll('mark[tabindex="0"]')) other.tabIndex = -1;
  mark.tabIndex = 0;
  show(mark);
}

// The pointer has left: the tip goes back to the mark that has the focus, if one has.
function rest() {
  if (tip.hidden) return;
  const focused = markOf(document.activeElement);
  if (focused) show(focused);
  else hide();
}

export function listenForTips(log) {
  log.addEventListener("keydown", move);
  log.addEventListener("focusin", takeFocus);
  log.addEventListener("focusout", hide);
  document.addEventListener("pointerover", (event) => {
    const mark = markOf(event.target);
    if (mark) show(mark);
    else if (!tip.contains(event.target)) rest();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
  });
}
