// Body of a function (element, id, scene, keep), run for each box of the kind "paint".  What is painted is a raster of
// SIDE x SIDE, stretched over the picture, until Generate asks for it: then it is stored as a PNG of the proportions of
// the picture, each pixel of exactly one colour of the palette, and white where nothing is painted.
// scene() tells what to ask the palette for, and which picture lies behind; keep(painted) hears of every change, and whether a person painted or opened something.
const SIDE = 512, KEPT = 60, ASK_MS = 250, STEP = 1 / 64;
const part = (name) => element.querySelector(`.paint-${name}`);
const sheet = part("sheet"), canvas = part("canvas"), plan = part("plan"), box = part("box"), cursor = part("cursor");
const under = part("under"), size = element.querySelector("[type=range]"), file = element.querySelector("[type=file]");
const context = canvas.getContext("2d");

let pixels = new Uint32Array(SIDE * SIDE);  // 0xAABBGGRR; 0 where nothing is painted
let palette = { paints: [], rest: "", problem: "" };
let chosen = 0;         // place in the palette, -1: nothing
let tool = "brush";
let width = 512, height = 512;   // of the picture that will be made
let stored = "";        // SHA-256 of the picture while it is as it was stored
let undone = [], done = [];      // packed rasters
let asked = "", asking = false, loading = 0;
let opening = Promise.resolve();  // the picture that is under way into the store
let hand = null;        // {x, y} where the pointer began, or the keyboard's brush is down
let point = { x: 0.5, y: 0.5 };  // of the keyboard, from 0 to 1

const number = (colour) => {
  const value = parseInt(colour.slice(1), 16);
  return (0xff000000 | ((value & 255) << 16) | (value & 0xff00) | (value >> 16)) >>> 0;
};
const isPainted = () => pixels.some((one) => one !== 0);
const ink = () => (tool === "eraser" || chosen < 0 || !palette.paints.length ? 0 : number(palette.paints[chosen].colour));

function fail(text) { element.querySelector(".mod-error").textContent = text; }

// --- undo ---------------------------------------------------------------------------------------------------------

/** Runs of one colour: [colour, end, colour, end, ...]. */
function packed() {
  const runs = [];
  for (let i = 0; i < pixels.length; i++) {
    if (i && pixels[i] === pixels[i - 1]) runs[runs.length - 1] = i + 1;
    else runs.push(pixels[i], i + 1);
  }
  return { runs: Uint32Array.from(runs), stored };
}

function unpack(kept) {
  let start = 0;
  for (let i = 0; i < kept.runs.length; i += 2) {
    pixels.fill(kept.runs[i], start, kept.runs[i + 1]);
    start = kept.runs[i + 1];
  }
  stored = kept.stored;
}

/** Before a change: what there is can be had back. */
function remember() {
  done.push(packed());
  if (done.length > KEPT) done.shift();
  undone = [];
  stored = "";
}

function step(from, to) {
  if (!from.length) return;
  to.push(packed());
  unpack(from.pop());
  changed();
}

function changed() {
  canvas.toggleAttribute("data-down", Boolean(hand));
  draw();
  if (!isPainted()) stored = "";
  show();
  keep(isPainted());
}

// --- painting: places are from 0 to 1 of the picture's width and height ---------------------------------------------

/** Width and height in shares of the longer side. */
const extent = () => [width / Math.max(width, height), height / Math.max(width, height)];
/** The brush's radius in shares of the longer side; the slider is a share of the shorter one. */
const radius = () => Math.max(0.75 / SIDE, (Number(size.value) / 400) * Math.min(...extent()));

/** A line from one place to another, as thick as the brush, with a hard edge: a blend would be another colour. */
function line(from, to, colour) {
  const [w, h] = extent(), r = radius();
  const clamp = (value) => Math.max(0, Math.min(SIDE, value));
  const left = clamp(Math.floor((Math.min(from.x, to.x) - r / w) * SIDE)), right = clamp(Math.ceil((Math.max(from.x, to.x) + r / w) * SIDE));
  const top = clamp(Math.floor((Math.min(from.y, to.y) - r / h) * SIDE)), bottom = clamp(Math.ceil((Math.max(from.y, to.y) + r / h) * SIDE));
  const dx = (to.x - from.x) * w, dy = (to.y - from.y) * h, length = dx * dx + dy * dy;
  for (let row = top; row < bottom; row++) {
    for (let column = left; column < right; column++) {
      const x = ((column + 0.5) / SIDE - from.x) * w, y = ((row + 0.5) / SIDE - from.y) * h;
      const along = length ? Math.max(0, Math.min(1, (x * dx + y * dy) / length)) : 0;
      if ((x - along * dx) ** 2 + (y - along * dy) ** 2 <= r * r) pixels[row * SIDE + column] = colour;
    }
  }
}

function rectangle([left, top, right, bottom], colour) {
  const [x0, y0, x1, y1] = [left, top, right, bottom].map((share) => Math.round(Math.max(0, Math.min(1, share)) * SIDE));
  for (let row = y0; row < y1; row++) pixels.fill(colour, row * SIDE + x0, row * SIDE + x1);
}

/** Everything of one colour that hangs together with a place. */
function flood({ x, y }, colour) {
  const at = (share) => Math.max(0, Math.min(SIDE - 1, Math.floor(share * SIDE)));
  const start = at(y) * SIDE + at(x), old = pixels[start];
  if (old === colour) return;
  const open = [start];
  pixels[start] = colour;
  while (open.length) {
    const here = open.pop(), column = here % SIDE;
    for (const next of [column ? here - 1 : -1, column < SIDE - 1 ? here + 1 : -1, here - SIDE, here + SIDE]) {
      if (next >= 0 && next < pixels.length && pixels[next] === old) { pixels[next] = colour; open.push(next); }
    }
  }
}

const around = (from, to) => [Math.min(from.x, to.x), Math.min(from.y, to.y), Math.max(from.x, to.x), Math.max(from.y, to.y)];

/** The hand comes down, moves, and is lifted: the same for pointer and keyboard. */
function press(place) {
  fail("");
  if (tool === "fill") {
    remember();
    flood(place, ink());
    changed();
    return;
  }
  hand = place;
  canvas.toggleAttribute("data-down", true);
  if (tool === "box") return band(place);
  remember();
  line(place, place, ink());
  draw();
}

function move(place) {
  if (!hand) return;
  if (tool === "box") return band(place);
  line(hand, place, ink());
  hand = place;
  draw();
}

function lift(place) {
  if (!hand) return;
  if (tool === "box" && place) {
    remember();
    rectangle(around(hand, place), ink());
  }
  hand = null;
  box.hidden = true;
  changed();
}

/** Give up what the hand does. */
function cancel() {
  if (tool !== "box") unpack(done.pop());
  hand = null;
  box.hidden = true;
  changed();
}

function band(place) {
  const [left, top, right, bottom] = around(hand, place);
  box.hidden = false;
  Object.assign(box.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%` });
}

// --- what is on the screen ----------------------------------------------------------------------------------------

let drawing = false;
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    const shown = new Map(palette.paints.map((one) => [number(one.colour), number(one.shown || one.colour)]));
    const seen = new Uint32Array(pixels.length);
    let last = 0, as = 0;
    for (let i = 0; i < pixels.length; i++) {
      if (pixels[i] !== last) { last = pixels[i]; as = shown.get(last) ?? last; }
      seen[i] = as;
    }
    context.putImageData(new ImageData(new Uint8ClampedArray(seen.buffer), SIDE, SIDE), 0, 0);
  });
}

/** The names of the paints that are nowhere; none where a picture from a file has colours of its own. */
function missing() {
  const there = new Set(pixels), own = palette.paints.map((one) => number(one.colour));
  if ([...there].some((one) => one && !own.includes(one))) return [];
  return palette.paints.filter((_, place) => !there.has(own[place]));
}

function show() {
  const painted = isPainted(), lacking = painted ? missing() : [];
  element.querySelector(".painter").classList.toggle("painted", painted);
  // Not disabled: a button that is loses the focus of who just pressed it.
  const can = { undo: done.length, redo: undone.length, clear: painted, plan: palette.paints.some((one) => one.places.length) };
  for (const [name, is] of Object.entries(can)) element.querySelector(`[data-do=${name}]`).setAttribute("aria-disabled", !is);
  for (const one of element.querySelectorAll("[data-tool]")) one.setAttribute("aria-pressed", one.dataset.tool === tool);
  for (const one of part("colours").children) {
    const place = Number(one.dataset.paint);
    one.setAttribute("aria-pressed", place === chosen);
    one.classList.toggle("lacking", lacking.includes(palette.paints[place]));
  }
  part("note").textContent = note(painted, lacking);
}

function note(painted, lacking) {
  if (palette.problem && !(painted && palette.paints.length)) return palette.problem;
  if (!painted) return palette.paints.length > 1 ? "Nothing is painted: the regions are as shown." : "";
  if (!lacking.length) return "";
  const names = lacking.map((one) => `${palette.paints.indexOf(one) + 1} ${one.name}`).join(", ");
  return `Nothing is painted yet for ${names}.`;
}

function tag(kind, name, text = "") {
  const made = document.createElement(kind);
  made.className = name;
  made.textContent = text;
  return made;
}

function row(place, name, text, colour) {
  const made = tag("button", "paint-colour");
  made.type = "button";
  made.dataset.paint = place;
  const swatch = tag("span", "paint-swatch", place < 0 ? "" : place + 1);
  if (colour) swatch.style.background = colour;
  const words = tag("span", "paint-words");
  words.append(tag("b", "", name), tag("span", "paint-text", text || "—"));
  made.append(swatch, words);
  made.title = text;
  return made;
}

function region(paint, place, [left, top, right, bottom]) {
  const made = tag("div", "paint-region");
  Object.assign(made.style, { left: `${left * 100}%`, top: `${top * 100}%`, width: `${(right - left) * 100}%`, height: `${(bottom - top) * 100}%` });
  made.style.setProperty("--paint", paint.shown || paint.colour);
  made.append(tag("b", "", place + 1), tag("span", "", paint.text));
  return made;
}

function take(found) {
  palette = found;
  const last = palette.paints.length - 1;
  if (chosen > last) chosen = Math.max(0, last);
  const focused = document.activeElement?.closest?.(".paint-colour")?.dataset.paint;
  part("colours").replaceChildren(
    ...palette.paints.map((one, place) => row(place, one.name, one.text, one.shown || one.colour)),
    ...(palette.paints.length ? [row(-1, "elsewhere", palette.rest, "")] : []),
  );
  if (focused !== undefined) part("colours").querySelector(`[data-paint="${focused}"]`)?.focus();
  plan.replaceChildren(...palette.paints.flatMap((one, place) => one.places.map((where) => region(one, place, where))));
  draw();
  show();
}

function fitSheet(found) {
  ({ width, height } = found.request.size);
  sheet.style.aspectRatio = `${width} / ${height}`;
  sheet.style.setProperty("--ratio", width / height);
  part("size").textContent = `${width} × ${height}`;
  const behind = found.behind;
  under.hidden = !behind;
  sheet.classList.toggle("over", Boolean(behind));
  if (!behind) return;
  if (under.src !== behind.src) under.src = behind.src;
  under.style.objectFit = behind.fit;
}

/** Ask what the colours stand for whenever something on the page changed that they depend on. */
async function look() {
  if (asking || !element.checkVisibility()) return;
  const found = scene();
  fitSheet(found);
  const { name, options, request } = found, body = JSON.stringify({ name, options, request });
  if (body === asked) return;
  asking = true;
  try {
    const answer = await fetch("api/v1/modules/palette", { method: "POST", body, headers: { "Content-Type": "application/json" } });
    const data = await answer.json();
    asked = body;
    fail(answer.ok ? "" : data.error || `The colours could not be had (HTTP ${answer.status}).`);
    if (answer.ok) take(data);
  } catch { /* the server is away; asked again when it may be back */ } finally {
    asking = false;
  }
}
setInterval(look, ASK_MS);

// --- pointer --------------------------------------------------------------------------------------------------------

function placed(event) {
  const rect = canvas.getBoundingClientRect(), share = (at, from, length) => Math.max(0, Math.min(1, (at - from) / length));
  return { x: share(event.clientX, rect.left, rect.width), y: share(event.clientY, rect.top, rect.height) };
}

function showCursor(place) {
  const [w, h] = extent(), rect = sheet.getBoundingClientRect(), side = tool === "brush" || tool === "eraser" ? radius() * 2 : 0;
  cursor.hidden = false;
  cursor.classList.toggle("cross", !side);
  const wide = side ? (side / w) * rect.width : 18, high = side ? (side / h) * rect.height : 18;
  Object.assign(cursor.style, { width: `${wide}px`, height: `${high}px`, left: `${place.x * rect.width - wide / 2}px`, top: `${place.y * rect.height - high / 2}px` });
}

// A rectangle of the mouse may begin beside the canvas, so that it reaches the edge.
part("stage").addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || !event.isPrimary) return;
  if (event.target !== canvas && (tool !== "box" || event.pointerType !== "mouse")) return;
  event.preventDefault();
  canvas.focus({ preventScroll: true });
  canvas.setPointerCapture(event.pointerId);
  if (hand) lift(null);
  point = placed(event);
  press(point);
});
canvas.addEventListener("pointermove", (event) => {
  if (!event.isPrimary) return;
  const place = placed(event);
  showCursor(place);
  if (!hand || !canvas.hasPointerCapture(event.pointerId)) return;
  point = place;
  const all = event.getCoalescedEvents?.() || [];
  for (const one of all.length ? all : [event]) move(placed(one));
});
canvas.addEventListener("pointerup", (event) => { if (event.isPrimary) lift(placed(event)); });
canvas.addEventListener("pointercancel", () => lift(null));
canvas.addEventListener("pointerleave", () => { if (document.activeElement !== canvas) cursor.hidden = true; });
canvas.addEventListener("blur", () => { lift(null); cursor.hidden = true; });
canvas.addEventListener("focus", () => showCursor(point));
canvas.addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  resize(event.deltaY < 0 ? 3 : -3);
}, { passive: false });

function resize(by) {
  size.value = Number(size.value) + by;
  showCursor(point);
}

// --- keys -----------------------------------------------------------------------------------------------------------

const TOOLS = { b: "brush", r: "box", f: "fill", e: "eraser" };
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function chooseTool(name) {
  if (hand) lift(null);
  tool = name;
  show();
}

function choose(place) {
  if (place >= palette.paints.length) return;
  chosen = place;
  if (tool === "eraser") tool = "brush";
  show();
}

function walk([dx, dy], far) {
  const reach = STEP * (far ? 8 : 1), within = (share) => Math.max(0, Math.min(1, share));
  point = { x: within(point.x + dx * reach), y: within(point.y + dy * reach) };
  move(point);
  showCursor(point);
}

function onKey(event) {
  if (event.key in ARROWS) walk(ARROWS[event.key], event.shiftKey);
  else if (event.key === " " || event.key === "Enter") hand ? lift(point) : press(point);
  else if (event.key === "Escape" && hand) cancel();
  else if (event.key === "[" || event.key === "]") resize(event.key === "]" ? 3 : -3);
  else if (/^[0-9]$/.test(event.key)) choose(Number(event.key) - 1);
  else if (TOOLS[event.key.toLowerCase()]) chooseTool(TOOLS[event.key.toLowerCase()]);
  else return;
  event.preventDefault();
}

element.addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase(), control = event.ctrlKey || event.metaKey;
  if (control && (key === "z" || key === "y")) {
    event.preventDefault();
    if (hand) lift(null);
    key === "y" || event.shiftKey ? step(undone, done) : step(done, undone);
  } else if (event.target === canvas && !control && !event.altKey) onKey(event);
});

element.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || button.ariaDisabled === "true") return;
  if (button.dataset.tool) chooseTool(button.dataset.tool);
  if (button.dataset.paint) choose(Number(button.dataset.paint));
  switch (button.dataset.do) {
    case "undo": return step(done, undone);
    case "redo": return step(undone, done);
    case "open": return file.click();
    case "clear":
      remember();
      pixels.fill(0);
      return changed();
    case "plan":
      remember();
      pixels.fill(0);
      for (const one of palette.paints) for (const where of one.places) rectangle(where, number(one.colour));
      return changed();
  }
});

// --- pictures -------------------------------------------------------------------------------------------------------

async function lay(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  const whole = document.createElement("canvas");
  whole.width = whole.height = SIDE;
  const pen = whole.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingEnabled = false;
  pen.drawImage(picture, 0, 0, SIDE, SIDE);
  const found = new Uint32Array(pen.getImageData(0, 0, SIDE, SIDE).data.buffer);
  return found.map((one) => (one >>> 24 < 128 || one === 0xffffffff ? 0 : (one | 0xff000000) >>> 0));
}

/** Show a stored picture, or none. */
async function shown(digest) {
  const turn = ++loading;
  done = [];
  undone = [];
  fail("");
  pixels.fill(0);
  stored = digest || "";
  draw();
  show();
  if (!digest) return;
  try {
    const found = await lay(`api/v1/inputs/${digest}`);
    if (turn === loading && stored === digest) pixels = found;
  } catch {
    if (turn === loading) fail("The painted picture could not be loaded.");
  }
  draw();
  show();
}

async function opened(picked) {
  const turn = ++loading;
  fail("");
  try {
    const [found, digest] = await Promise.all([lay(URL.createObjectURL(picked)), window.webui.store(picked)]);
    if (turn !== loading) return;
    remember();
    pixels = found;
    stored = digest;
    draw();
    show();
    keep(true);
  } catch (error) {
    if (turn === loading) fail(error.name === "EncodingError" ? "This file is not a picture that the browser can show." : error.message);
  }
}
file.addEventListener("change", () => {
  if (file.files[0]) opening = opened(file.files[0]);
  file.value = "";  // so that the same file can be chosen again
});
sheet.addEventListener("dragover", (event) => event.preventDefault());
sheet.addEventListener("drop", async (event) => {
  event.preventDefault();
  const dropped = await window.webui.droppedFile(event);
  if (dropped) opening = opened(dropped);
});

async function written() {
  const [w, h] = extent().map((share) => Math.max(1, Math.round(share * SIDE)));
  const made = document.createElement("canvas");
  made.width = w;
  made.height = h;
  const out = new Uint32Array(w * h);
  for (let row = 0; row < h; row++) {
    const start = Math.floor(((row + 0.5) / h) * SIDE) * SIDE;
    for (let column = 0; column < w; column++) out[row * w + column] = pixels[start + Math.floor(((column + 0.5) / w) * SIDE)] || 0xffffffff;
  }
  made.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(out.buffer), w, h), 0, 0);
  return new Promise((resolve) => made.toBlob(resolve, "image/png"));
}

// Called by Generate, which goes no further when this fails: without its regions it would make another picture.
window.webui.canvases[id] = async () => {
  if (hand) lift(null);
  await opening;
  while (!stored && isPainted()) {
    const before = pixels.slice();
    let digest;
    try {
      digest = await window.webui.store(await written());
    } catch (error) {
      fail(error.message);
      element.scrollIntoView({ block: "nearest" });
      throw error;
    }
    if (before.every((one, at) => one === pixels[at])) stored = digest;  // else it was painted on meanwhile
  }
  keep();
};

part("help").id = `${id}_help`;
canvas.setAttribute("aria-describedby", `${id}_help`);
show();
return {
  id,
  get value() { return stored ? { image: stored } : null; },
  show(digest) { if ((digest || "") !== stored || (!stored && isPainted())) shown(digest); },
};
