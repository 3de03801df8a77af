"use strict";
// One object after another. What was judged is kept for this tab until the server has written it, so that neither a
// reload nor another writer of the dataset loses a judgement.
const $ = (selector) => document.querySelector(selector);
const page = $("#judge");
const AHEAD = 8;
const AGAIN_MS = 3000;

let coming = []; // objects that were not shown yet
let cards = []; // shown in this tab, in order, each with its judgement if it has one
let at = -1;
let from = 0; // place in the order behind the last object that was fetched
let asks = false;
let done = false;
let generation = 0;
let state = { judged: 0, total: Number(page.dataset.total), scores: {} };
let flags = new Set();
const order = $("#order");
order.value = sessionStorage.getItem("label-order") || "random";
if (!order.value) order.value = "random";

// -- judgements on their way to the server
const waiting = JSON.parse(sessionStorage.getItem("label-waiting") || "[]");
let sends = false;
const keep = () => sessionStorage.setItem("label-waiting", JSON.stringify(waiting));
function trouble(text) {
  const line = $("#trouble");
  line.textContent = text;
  line.hidden = !text;
}
async function send() {
  if (sends) return;
  sends = true;
  while (waiting.length) {
    let answer, text;
    try {
      answer = await fetch("/label", {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-Refloom-Token": page.dataset.token },
        body: JSON.stringify(waiting[0]),
      });
      text = await answer.text();
    } catch {
      answer = null;
    }
    const count = waiting.length === 1 ? "1 judgement waits" : `${waiting.length} judgements wait`;
    if (answer && answer.ok) {
      waiting.shift();
      state = JSON.parse(text);
      trouble("");
    } else if (answer && answer.status === 403) {
      trouble(`${count}: ${text}`);
      break;
    } else if (answer && answer.status < 500 && answer.status !== 409) {
      const lost = waiting.shift();
      trouble(`not saved: ${lost.object_id}: ${text}`);
    } else {
      trouble(`${count}: ${answer ? text : "the server does not answer: is it still running?"}`);
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
    }
    keep();
    said();
  }
  sends = false;
}

// -- what comes next
async function ask() {
  if (asks || done || coming.length >= AHEAD / 2) return;
  asks = true;
  const mine = generation;
  try {
    const answer = await fetch(`/label/next?order=${order.value}&from=${from}&count=${AHEAD}`);
    const found = await answer.json();
    if (mine === generation) {
      const known = new Set([...coming, ...cards].map((card) => card.object_id).concat(waiting.map((one) => one.object_id)));
      for (const card of found.cards) {
        from = card.place + 1;
        if (!known.has(card.object_id)) coming.push(card);
      }
      done = found.cards.length < AHEAD;
      if (!sends && !waiting.length) state = found.progress;
      for (const card of coming) new Image().src = source(card);
    }
  } catch {
    trouble("the server does not answer: is it still running?");
  }
  asks = false;
  if (mine !== generation) return ask();
  if (at < 0 || at >= cards.length) next();
  said();
}
const source = (card) => `/label/cutout?id=${encodeURIComponent(card.object_id)}`;
function next() {
  if (at + 1 < cards.length) at += 1;
  else if (coming.length) {
    cards.push(coming.shift());
    at = cards.length - 1;
  } else at = cards.length;
  show();
  ask();
}
function show() {
  const card = cards[at];
  page.classList.toggle("empty", !card);
  flags = new Set(card?.flags || []);
  $("#cutout").hidden = !card;
  $("#name").textContent = card ? card.name || "no class" : done ? "Everything was judged or left for later." : "";
  $("#object").textContent = card ? card.object_id : "";
  if (card) $("#cutout").src = source(card);
  page.dataset.object = card ? card.object_id : "";
  press();
}
function press() {
  for (const button of document.querySelectorAll(".score")) {
    button.setAttribute("aria-pressed", String(cards[at]?.score === Number(button.dataset.score)));
  }
  for (const button of document.querySelectorAll(".flag")) {
    button.setAttribute("aria-pressed", String(flags.has(button.dataset.flag)));
  }
}
function said() {
  const scores = [3, 2, 1, 0].map((score) => `${score}: ${(state.scores[score] || 0).toLocaleString("en")}`).join("  ");
  const open = waiting.length ? `, ${waiting.length} on the way` : "";
  $("#progress").textContent = `${state.judged.toLocaleString("en")} of ${state.total.toLocaleString("en")} judged${open} · ${scores}`;
  $("#bar").value = state.judged;
  page.dataset.judged = state.judged;
}

// -- what one does
function judge(score) {
  const card = cards[at];
  if (!card) return;
  card.score = score;
  card.flags = [...flags];
  waiting.push({ object_id: card.object_id, score, flags: card.flags });
  keep();
  send();
  next();
  said();
}
function back(step) {
  const to = at + step;
  if (to < 0 || to > cards.length - 1) return;
  at = to;
  show();
}
function undo() {
  for (let place = Math.min(at, cards.length - 1); place >= 0; place -= 1) {
    const card = cards[place];
    if (card.score === undefined) continue;
    delete card.score;
    waiting.push({ object_id: card.object_id, score: null, flags: [] });
    keep();
    send();
    at = place;
    show();
    said();
    return;
  }
}
function toggle(flag) {
  if (!cards[at]) return;
  if (!flags.delete(flag)) flags.add(flag);
  press();
}
function reorder(name) {
  if (![...order.options].some((option) => option.value === name)) return;
  order.value = name;
  sessionStorage.setItem("label-order", name);
  generation += 1;
  coming = [];
  from = 0;
  done = false;
  if (cards[at] && cards[at].score === undefined) cards.length = at;
  at = cards.length;
  ask();
}
$("#cutout").addEventListener("error", () => { if (cards[at]) $("#name").textContent = "Its picture cannot be read: leave it for later."; });
order.addEventListener("change", () => { reorder(order.value); order.blur(); });
$("#back").addEventListener("click", undo);
$("#skip").addEventListener("click", next);
for (const button of document.querySelectorAll(".score")) button.addEventListener("click", () => judge(Number(button.dataset.score)));
for (const button of document.querySelectorAll(".flag")) button.addEventListener("click", () => toggle(button.dataset.flag));
const help = $("#keys");
$("#help").addEventListener("click", () => help.showModal());
help.addEventListener("click", (event) => { if (event.target === help) help.close(); });
const keys = { u: undo, Backspace: undo, ArrowLeft: () => back(-1), ArrowRight: () => (at + 1 < cards.length ? back(1) : next()), " ": next, r: () => reorder("random"), q: () => reorder("uncertain"), "?": () => help.showModal() };
for (const button of document.querySelectorAll(".flag")) keys[button.dataset.key] = () => toggle(button.dataset.flag);
for (const score of [0, 1, 2, 3]) keys[score] = () => judge(score);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || help.open || event.target.matches?.("select")) return;
  if (event.target.matches?.("button") && event.key === "Enter") return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});
said();
send();
ask();
