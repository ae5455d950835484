
"use strict";
const byId = (id) => document.getElementById(id);
const blocks = [...document.querySelectorAll("details")];
const nodes = [...document.querySelectorAll(".node")];
const words = nodes.map((node) => node.textContent.toLowerCase());
const first = blocks.filter((block) => block.open);
let zoom = 1;
let hits = [];
let now = -1;

function find() {
  const wanted = byId("find").value.trim().toLowerCase();
  hits = [];
  now = -1;
  document.body.classList.toggle("searched", wanted !== "");
  nodes.forEach((node, i) => {
    const hit = wanted !== "" && words[i].includes(wanted);
    node.classList.toggle("hit", hit);
    node.classList.remove("now");
    if (hit) hits.push(node);
  });
  for (const block of blocks) {
    block.open = wanted === "" ? first.includes(block) : block.querySelector(".hit") !== null;
  }
  byId("found").textContent = wanted === "" ? "" : `${hits.length} found`;
}

// Shows the next one that was found, or the one before.
function step(by) {
  if (hits.length === 0) return;
  if (now >= 0) hits[now].classList.remove("now");
  now = (now + by + hits.length) % hits.length;
  hits[now].closest("details").open = true;
  hits[now].classList.add("now");
  hits[now].scrollIntoView({ block: "center", inline: "center" });
  byId("found").textContent = `${now + 1} of ${hits.length}`;
}

function scale(by) {
  zoom = Math.min(8, Math.max(0.1, zoom * by));
  document.body.style.setProperty("--zoom", zoom);
}

byId("find").addEventListener("input", find);
byId("find").addEventListener("keydown", (event) => {
  if (event.key === "Enter") step(event.shiftKey ? -1 : 1);
});
byId("unfold").addEventListener("click", () => blocks.forEach((block) => (block.open = true)));
byId("fold").addEventListener("click", () => blocks.forEach((block) => (block.open = false)));
byId("larger").addEventListener("click", () => scale(1.25));
byId("smaller").addEventListener("click", () => scale(0.8));
addEventListener("wheel", (event) => {
  if (!event.ctrlKey || !event.target.closest(".drawing")) return;
  event.preventDefault();
  scale(event.deltaY < 0 ? 1.1 : 1 / 1.1);
}, { passive: false });
