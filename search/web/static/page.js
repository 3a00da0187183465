// What the page does beyond links and forms: pictures by drop, paste and choice, keys, details, drawing, late captions.
// Listeners sit on document, so a page that is swapped in needs none of its own.
"use strict";

const LARGEST_SIDE = 1024;
const FIRST_CAPTIONS = 6; // asked for first, so that what is in view is not kept waiting by what is not
const GHOSTS = 12;

const at = (selector, within = document) => within.querySelector(selector);
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const say = (words) => { at("#said").textContent = words; };

let latest = 0; // number of the last search by a picture; an answer to an earlier one comes too late
let picture = null; // the File that the hits shown were found by
const pictures = []; // history.state.picture is the number of that entry's File

// -- searching by a picture ---------------------------------------------------------------------

async function searchBy(file, address, { push = true } = {}) {
  const form = at("#by-picture");
  if (!form) return;
  const mine = ++latest;
  busy(true);
  const body = new FormData();
  const small = await shrunk(file);
  const limit = Number(at("input[name=image]").dataset.maxBytes);
  if (small.size > limit) return fail(`This file is too large: ${megabytes(small.size)}; the limit is ${megabytes(limit)}.`);
  body.append("image", small, small.name || "picture");
  let answer, html;
  try {
    answer = await fetch(address || form.action, { method: "POST", body });
    html = await answer.text();
  } catch {
    return mine === latest && fail("The server cannot be reached. Is it running, and are you online?");
  }
  if (mine !== latest) return;
  if (!(answer.headers.get("Content-Type") || "").startsWith("text/html")) {
    return fail("Something went wrong on the server. Try again in a moment.");
  }
  picture = answer.ok ? small : null;
  if (push) {
    pictures.push(small);
    history.pushState({ picture: pictures.length - 1 }, "", address || form.action);
  }
  swap(html);
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

// A picture no side of which is longer than LARGEST_SIDE, upright; the file itself when it is that small, or when
// this browser cannot read it: the server may.
async function shrunk(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return file;
  }
  const scale = LARGEST_SIDE / Math.max(bitmap.width, bitmap.height);
  if (scale >= 1) return file;
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const brush = canvas.getContext("2d");
  brush.fillStyle = "#fff"; // as the server does with transparency
  brush.fillRect(0, 0, canvas.width, canvas.height);
  brush.imageSmoothingQuality = "high";
  brush.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
  return blob ? new File([blob], "picture.jpg", { type: "image/jpeg" }) : file;
}

function swap(html) {
  const next = new DOMParser().parseFromString(html, "text/html");
  at("#page").replaceWith(document.adoptNode(at("#page", next)));
  document.title = next.title;
  const heading = at("#results");
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target) at(".open", target)?.focus();
  else {
    scrollTo(0, 0);
    heading?.focus({ preventScroll: true });
  }
  say(at("[role=alert]") ? "" : `${all(".hit").length} pictures`);
  fillCaptions();
}

function fail(words) {
  busy(false);
  const notice = document.createElement("div");
  const heading = document.createElement("h1");
  notice.className = "notice";
  notice.setAttribute("role", "alert");
  heading.textContent = words;
  notice.append(heading);
  at("main > .notice[role=alert]")?.remove();
  at("main").prepend(notice);
  scrollTo(0, 0);
}

function busy(on) {
  const main = at("main");
  all(".ghosts", main).forEach((ghosts) => ghosts.remove());
  all(".gone", main).forEach((one) => one.classList.remove("gone"));
  main.setAttribute("aria-busy", String(on));
  say(on ? "Searching…" : "");
  if (!on) return;
  all(":scope > .hits, :scope > .more, :scope > .notice, :scope > .asked", main).forEach((one) => one.classList.add("gone"));
  const ghosts = document.createElement("ol");
  ghosts.className = "hits ghosts";
  ghosts.setAttribute("aria-hidden", "true");
  for (let i = 0; i < GHOSTS; i++) {
    const ghost = document.createElement("li");
    for (const kind of ["tile", "line"]) {
      ghost.append(Object.assign(document.createElement("span"), { className: kind }));
    }
    ghosts.append(ghost);
  }
  main.append(ghosts);
}

document.addEventListener("change", (event) => {
  if (event.target.matches("input[type=file]")) {
    const [file] = event.target.files;
    event.target.value = ""; // the same file may be chosen again
    if (file) searchBy(file);
  } else if (event.target.matches("select[name=collection]")) {
    all("input[name=f]", event.target.form).forEach((filter) => filter.remove()); // of the other collection
    if (picture) searchBy(picture, `/?${new URLSearchParams({ collection: event.target.value })}`);
    else event.target.form.requestSubmit();
  }
});

document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData?.files || [];
  if (!file) return;
  event.preventDefault();
  closeDetail();
  searchBy(file);
});

const carriesFile = (event) => [...(event.dataTransfer?.types || [])].includes("Files");
let entered = 0; // dragenter and dragleave come once an element
document.addEventListener("dragenter", (event) => {
  if (!carriesFile(event)) return;
  entered += 1;
  at("#drop").hidden = false;
});
document.addEventListener("dragleave", (event) => {
  if (!carriesFile(event)) return;
  entered = Math.max(0, entered - 1);
  at("#drop").hidden = entered === 0;
});
document.addEventListener("dragover", (event) => { if (carriesFile(event)) event.preventDefault(); });
document.addEventListener("drop", (event) => {
  if (!carriesFile(event)) return;
  event.preventDefault();
  entered = 0;
  at("#drop").hidden = true;
  const [file] = event.dataTransfer.files;
  closeDetail();
  if (file) searchBy(file);
});

addEventListener("popstate", (event) => {
  const again = pictures[event.state?.picture];
  if (again) searchBy(again, location.href, { push: false });
  else location.reload();
});

// -- following links, and showing that something is under way ------------------------------------

document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest("a[href]");
  if (!link) return;
  if (link.matches(".open")) {
    event.preventDefault();
    openDetail(link.closest(".hit"));
  } else if (link.getAttribute("href").startsWith("#")) {
    event.preventDefault();
    at(link.getAttribute("href"))?.focus();
  } else if (picture && link.matches("[data-keep]")) {
    event.preventDefault();
    closeDetail();
    searchBy(picture, link.href);
  } else if (link.matches("#page a, .like, dialog a") && link.pathname === "/") {
    closeDetail();
    busy(true);
  }
});
document.addEventListener("submit", (event) => { if (event.target.matches("#by-words")) busy(true); });
addEventListener("pageshow", (event) => { if (event.persisted) busy(false); });

// -- keys ----------------------------------------------------------------------------------------

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.metaKey || event.ctrlKey || event.altKey) return;
  if (at("#detail").open) {
    if (event.key === "ArrowRight") step(1);
    if (event.key === "ArrowLeft") step(-1);
    return;
  }
  const box = at("#q");
  const typing = event.target.matches("input:not([type=file]), textarea, select");
  if (event.key === "/" && !typing && box) {
    event.preventDefault();
    box.focus();
    box.select();
  } else if (event.key === "ArrowDown" && event.target === box) {
    const first = at(".hit .open");
    if (first) event.preventDefault();
    first?.focus();
  } else if (!typing && event.target.closest(".hit")) {
    walk(event);
  }
});

function walk(event) {
  const hits = all(".hit");
  const here = hits.indexOf(event.target.closest(".hit"));
  const columns = hits.filter((hit) => hit.offsetTop === hits[0].offsetTop).length;
  const to = {
    ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns, Home: 0, End: hits.length - 1,
  }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  if (to < 0 && event.key === "ArrowUp") at("#q").focus();
  else if (hits[to]) at(".open", hits[to]).focus();
}

// -- detail --------------------------------------------------------------------------------------

let opened = null; // the hit in the dialog

function openDetail(hit) {
  const dialog = at("#detail");
  const sheet = document.createElement("div");
  sheet.className = "sheet";
  sheet.append(at("template", hit).content.cloneNode(true));
  const tools = document.createElement("div");
  tools.className = "tools";
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "×", title: "Close" });
  close.setAttribute("aria-label", "Close");
  close.addEventListener("click", closeDetail);
  tools.append(close);
  dialog.replaceChildren(tools, sheet);
  dialog.setAttribute("aria-label", at("h2", sheet).textContent);
  const large = at("img", sheet);
  large?.addEventListener("error", () => { large.src = large.dataset.instead; }, { once: true }); // TIFF, for one
  opened = hit;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  const known = at("[data-caption]", hit)?.textContent;
  const place = at("[data-caption]", sheet);
  if (known) place.textContent = known;
  else captionOne(hit.dataset.key, place);
}

function step(by) {
  const hits = all(".hit");
  const next = hits[hits.indexOf(opened) + by];
  if (next) openDetail(next);
}

function closeDetail() {
  if (at("#detail").open) at("#detail").close();
}

at("#detail").addEventListener("close", () => { at(".open", opened)?.focus(); });
at("#detail").addEventListener("click", (event) => { if (event.target === event.currentTarget) closeDetail(); });

// -- drawing: what is not there yet ------------------------------------------------------------------

const DRAWN = 4;

async function drawIt() {
  const words = at("#q").value.trim();
  if (!words) {
    at("#q").focus();
    return say("Describe what to draw first.");
  }
  at("#drawn")?.remove();
  const section = document.createElement("section");
  section.id = "drawn";
  section.className = "drawn";
  const heading = document.createElement("h2");
  heading.append("Drawn: ", Object.assign(document.createElement("span"), { dir: "auto", textContent: words }), " ");
  const tag = Object.assign(document.createElement("span"), { className: "tag", textContent: "generated" });
  tag.title = "Drawn by a model a moment ago: no such product need exist";
  heading.append(tag);
  const list = Object.assign(document.createElement("ol"), { className: "hits" });
  section.append(heading, list);
  at("main").prepend(section);
  const places = Array.from({ length: DRAWN }, () => list.appendChild(document.createElement("li")));
  places.forEach((place) => place.append(Object.assign(document.createElement("span"), { className: "tile" })));
  section.classList.add("waiting");
  scrollTo(0, 0);
  say("Drawing…");
  const seed = Math.floor(Math.random() * 2 ** 40);
  for (const [i, place] of places.entries()) {
    const answer = await drawOne(words, seed + i);
    if (!section.isConnected) return; // another search has taken its place
    if (!answer.data) {
      places.slice(i).forEach((left) => left.remove());
      section.append(Object.assign(document.createElement("p"), { className: "hint", textContent: answer.error }));
      break;
    }
    place.replaceChildren(drawnTile(answer.data[0], words));
  }
  section.classList.remove("waiting");
  say(`${all("button", section).length} pictures drawn`);
}

async function drawOne(prompt, seed) {
  try {
    const answer = await fetch("/v1/images/generations", {
      method: "POST", body: JSON.stringify({ prompt, seed }), headers: { "Content-Type": "application/json" },
    });
    const said = await answer.json();
    if (answer.ok) return said;
    if (said.error.code === "cannot_draw") return { error: "This cannot be drawn here: the generator has not learnt it." };
    if (answer.status === 429) return { error: "Many drawings are under way: try again in a moment." };
    return { error: said.error.message };
  } catch {
    return { error: "The server cannot be reached. Is it running, and are you online?" };
  }
}

function drawnTile({ b64_json: png }, words) {
  const button = Object.assign(document.createElement("button"), { type: "button", className: "open" });
  const tile = Object.assign(document.createElement("span"), { className: "tile" });
  tile.append(Object.assign(document.createElement("img"), { src: `data:image/png;base64,${png}`, alt: `Drawn: ${words}` }));
  button.append(tile, Object.assign(document.createElement("span"), { className: "like", textContent: "Search with this" }));
  button.addEventListener("click", () => {
    const bytes = Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0));
    searchBy(new File([bytes], "drawn.png", { type: "image/png" }));
  });
  return button;
}

document.addEventListener("click", (event) => { if (event.target.closest("[data-draw]")) drawIt(); });

// -- captions: after the hits, never before --------------------------------------------------------

async function fillCaptions() {
  const hits = at("#hits[data-search]");
  const asked = at(".asked[data-key] [data-caption]");
  if (asked) captionOne(at(".asked").dataset.key, asked);
  if (!hits) return;
  const search = JSON.parse(hits.dataset.search);
  const by = picture;
  const places = new Map(all(".hit").map((hit) => [hit.dataset.key, at("[data-caption]", hit)]));
  places.forEach((place) => place.classList.add("waiting"));
  try {
    for (const k of new Set([Math.min(FIRST_CAPTIONS, search.k), search.k])) {
      for (const hit of (await found({ ...search, k }, by)).hits) {
        if (hit.caption && places.has(hit.key)) caption(places.get(hit.key), hit.caption);
      }
    }
  } catch {
    // Captions are extra: without them the hits stand as they are.
  }
  places.forEach((place) => place.classList.remove("waiting"));
}

function caption(place, { text }) {
  place.classList.remove("waiting");
  place.textContent = text;
  place.title = "Written by the model; it may be wrong";
  const image = at(".tile img", place.closest(".hit") || place);
  if (image) image.alt = text;
}

async function captionOne(key, place) {
  const hits = at("#hits");
  if (!hits?.dataset.style) return;
  place.classList.add("waiting");
  try {
    const { collection, style } = hits.dataset;
    caption(place, (await posted("/v1/caption", JSON.stringify({ collection, image_key: key, style }))).caption);
  } catch {
    place.classList.remove("waiting");
  }
}

function found(search, by) {
  if (!by) return posted("/v1/search", JSON.stringify(search));
  const body = new FormData();
  body.append("request", JSON.stringify(search));
  body.append("image", by, "picture");
  return posted("/v1/search", body);
}

async function posted(address, body) {
  const headers = typeof body === "string" ? { "Content-Type": "application/json" } : {};
  const answer = await fetch(address, { method: "POST", body, headers });
  if (!answer.ok) throw new Error(`${address} answers ${answer.status}`);
  return answer.json();
}

if (matchMedia("(hover: hover)").matches) at("#q[data-first]")?.focus(); // elsewhere it would open a keyboard
fillCaptions();
