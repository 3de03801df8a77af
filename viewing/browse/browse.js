"use strict";
// Results appear while one types; pictures are fetched when they come into view; keys move about. Nothing is stored
// but, for this tab, the switches and the list that one came from.
const $ = (selector) => document.querySelector(selector);
document.documentElement.classList.add("scripted");

// -- pictures that come into view, a few at a time
const queue = [];
let running = 0;
const AT_ONCE = 4;
async function next() {
  if (running >= AT_ONCE) return;
  const place = queue.shift();
  if (!place) return;
  running += 1;
  try {
    if (place.isConnected) {
      const answer = await fetch(place.dataset.tile);
      const text = answer.ok ? await answer.text() : "";
      if (place.isConnected) place.outerHTML = text || '<div class="shot missing"><span>not found</span></div>';
    }
  } catch {
    place.classList.replace("waits", "missing");
  }
  running -= 1;
  next();
}
const eye = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    eye.unobserve(entry.target);
    queue.push(entry.target);
    next();
  }
}, { rootMargin: "300px" });
const look = () => { for (const place of document.querySelectorAll("[data-tile]")) eye.observe(place); };
look();

// -- the list that one came from
const remember = () => {
  if (!$("#results")) return;
  sessionStorage.setItem("list", location.pathname + location.search);
  sessionStorage.setItem("items", JSON.stringify([...document.querySelectorAll("#results a.cell")].map((a) => a.getAttribute("href"))));
};
remember();
const back = $("#back");
if (back && sessionStorage.getItem("list")) back.href = sessionStorage.getItem("list");
function beside(step) {
  const items = JSON.parse(sessionStorage.getItem("items") || "[]");
  const here = items.indexOf(location.pathname + location.search);
  if (here >= 0 && items[here + step]) location.assign(items[here + step]);
}

// -- search while typing
const form = $("#search");
let asked = 0;
async function search() {
  const number = ++asked;
  const values = new URLSearchParams([...new FormData(form)].filter(([name, value]) => value && !(name === "order" && value === "stored") && !(name === "view" && value === "pictures")));
  const written = values.toString();
  $("#results").classList.add("waits");
  let text;
  try {
    text = await (await fetch(`/grid?${written}`)).text();
  } catch {
    text = "";
  }
  if (number !== asked) return;
  if (!text) {
    $("#results").replaceChildren(Object.assign(document.createElement("p"), { className: "nothing", textContent: "The server does not answer: is it still running?" }));
    return;
  }
  queue.length = 0;
  const made = new DOMParser().parseFromString(text, "text/html");
  $("#results").replaceWith(made.querySelector("#results"));
  $(".tabs").replaceWith(made.querySelector(".tabs"));
  history.replaceState(null, "", written ? `/?${written}` : "/");
  remember();
  look();
}
if (form) {
  let timer;
  form.addEventListener("input", (event) => {
    clearTimeout(timer);
    timer = setTimeout(search, event.target.tagName === "SELECT" ? 0 : 180);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    search();
    $("#results a.cell")?.focus();
  });
}

// -- switches
for (const [id, name] of [["outlines", "clean"], ["rejects", "lenient"]]) {
  const box = document.getElementById(id);
  const apply = () => document.body.classList.toggle(name, !box.checked);
  box.checked = sessionStorage.getItem(id) !== "off";
  apply();
  box.addEventListener("change", () => {
    sessionStorage.setItem(id, box.checked ? "on" : "off");
    apply();
  });
}

// -- a large picture and the rows beside it point at each other
const large = $(".large");
if (large) {
  let held = large.dataset.show || "";
  const point = (key) => {
    large.classList.toggle("pointing", Boolean(key));
    for (const one of document.querySelectorAll("[data-key]")) one.classList.toggle("on", one.dataset.key === key);
  };
  const keyOf = (event) => event.target.closest?.("[data-key]")?.dataset.key || event.target.closest?.("tr")?.querySelector("[data-key]")?.dataset.key;
  document.addEventListener("pointerover", (event) => point(keyOf(event) || held));
  const hold = (key) => {
    held = held === key ? "" : key;
    point(held);
  };
  document.addEventListener("click", (event) => {
    const key = event.target.closest?.("[data-key]")?.dataset.key;
    if (key) hold(key);
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.dataset?.key && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      hold(event.target.dataset.key);
    }
  });
  point(held);
}

// -- keys
const keys = $("#keys");
$("#help").addEventListener("click", () => keys.showModal());
keys.addEventListener("click", (event) => { if (event.target === keys) keys.close(); });
function move(across, down) {
  const cells = [...document.querySelectorAll("a.cell")].filter((one) => one.offsetParent);
  if (!cells.length) return;
  const at = cells.indexOf(document.activeElement);
  const columns = cells.filter((one) => one.offsetTop === cells[0].offsetTop).length;
  const to = at < 0 ? 0 : Math.min(Math.max(at + across + down * columns, 0), cells.length - 1);
  cells[to].focus();
  cells[to].scrollIntoView({ block: "nearest" });
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || keys.open) return;
  const typing = event.target.matches?.("input:not([type=checkbox]), select, textarea");
  if (event.key === "Escape") {
    if (typing) event.target.blur();
    else if (back) location.assign(back.href);
    return;
  }
  if (typing) {
    if (event.key === "ArrowDown" && event.target.type === "search") { event.preventDefault(); move(0, 0); }
    return;
  }
  const onCell = document.activeElement?.matches?.("a.cell");
  const turn = (step) => {
    if (large || !$("#results")) return beside(step);
    const link = $(step > 0 ? ".pager a[rel=next]" : ".pager a[rel=prev]");
    if (link) location.assign(link.href);
  };
  const does = {
    "/": () => { ($("#q") ? $("#q").select() || $("#q").focus() : location.assign(back?.href || "/")); },
    "?": () => keys.showModal(),
    n: () => turn(1),
    p: () => turn(-1),
    o: () => $("#outlines").click(),
    r: () => $("#rejects").click(),
    h: () => move(-1, 0), l: () => move(1, 0), j: () => move(0, 1), k: () => move(0, -1),
    ArrowLeft: onCell ? () => move(-1, 0) : back ? () => beside(-1) : null,
    ArrowRight: onCell ? () => move(1, 0) : back ? () => beside(1) : null,
    ArrowDown: onCell ? () => move(0, 1) : null,
    ArrowUp: onCell ? () => move(0, -1) : null,
  };
  const tab = document.querySelectorAll(".tabs a")[Number(event.key) - 1];
  const act = does[event.key] || (/^[1-5]$/.test(event.key) && tab ? () => location.assign(tab.href) : null);
  if (act) {
    event.preventDefault();
    act();
  }
});
