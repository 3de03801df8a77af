"use strict";
// Hover texts are titles, which browsers show late: show them at once, in one box that follows the pointer.
const tip = document.getElementById("tip");
for (const title of document.querySelectorAll("svg title")) {
  title.parentNode.dataset.tip = title.textContent;
  title.remove();
}
for (const element of document.querySelectorAll("[title]")) {
  element.dataset.tip = element.title;
  element.removeAttribute("title");
}
document.addEventListener("pointermove", (event) => {
  const owner = event.target.closest("[data-tip]");
  tip.hidden = !owner || !owner.dataset.tip;
  if (tip.hidden) return;
  if (tip.textContent !== owner.dataset.tip) tip.textContent = owner.dataset.tip;
  const box = tip.getBoundingClientRect();
  const left = Math.min(event.clientX + 14, innerWidth - box.width - 8);
  const above = event.clientY + 18 + box.height > innerHeight;
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${above ? event.clientY - box.height - 12 : event.clientY + 18}px`;
});
document.addEventListener("pointerleave", () => { tip.hidden = true; });
// The section in view is marked in the table of contents.
const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(entry.target.id).setAttribute("aria-current", "true");
  }
}, { rootMargin: "-10% 0px -80% 0px" });
for (const anchor of links.keys()) observer.observe(document.getElementById(anchor));
// Pictures without their outlines.
document.getElementById("outlines").addEventListener("change", (event) => {
  document.body.classList.toggle("bare", !event.target.checked);
});
