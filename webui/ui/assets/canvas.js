// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// Keeps the picture's file as it is in the input store; the mask is a list of strokes until Generate asks for it.
const part = (name) => element.querySelector(`.canvas-${name}`);
const box = part("box"), image = part("image"), mask = part("mask"), file = part("file"), cursor = part("cursor");
const paintable = box.dataset.paint !== "no";
const colouring = box.dataset.paint.startsWith("colour");  // strokes have a colour and become part of the picture
const masking = box.dataset.paint === "yes" || box.dataset.paint === "colour-mask";
const size = element.querySelector(".canvas-size input");
const pot = element.querySelector(".canvas-colour input");
const INK = "ink";      // stands for the hatching, which is seen on any colour

let strokes = [];      // {radius, erase, colour, points: [x, y, ...]} in picture pixels
let stroke = null;     // the one being drawn
let erasing = false;
let stored = null;     // value.image of what is shown
let base = null;       // {picture, digest}: a mask from a file, under the strokes; white is masked
let saved = null;      // {base, strokes, mask, painted}: what was last uploaded, and as what
let zoom = 1;          // sheet pixels per picture pixel
let loading = 0;       // counts loads, so that a late one does not win

function fail(text) {
  part("error").textContent = text;
  box.classList.toggle("has-error", Boolean(text));
}

async function show(url, name) {
  image.src = url;
  await image.decode();
  // A small picture gets a finer sheet to paint on; strokes stay in picture pixels.
  zoom = Math.max(1, Math.ceil(768 / Math.max(image.naturalWidth, image.naturalHeight)));
  mask.width = image.naturalWidth * zoom;
  mask.height = image.naturalHeight * zoom;
  part("sheet").style.aspectRatio = `${image.naturalWidth} / ${image.naturalHeight}`;
  part("sheet").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  part("name").textContent = `${name ? `${name} · ` : ""}${image.naturalWidth} × ${image.naturalHeight}`;
  image.alt = name || "Start image";
  strokes = [];
  base = saved = null;
  redraw();
  box.classList.add("has-picture");
}

let taking = Promise.resolve();  // the picture that is under way into the store

function take(blob, name) {
  taking = taken(blob, name);
}

async function taken(blob, name) {
  const turn = ++loading;
  fail("");
  box.classList.add("busy");
  try {
    const [id] = await Promise.all([window.webui.store(blob), show(URL.createObjectURL(blob), name)]);
    if (turn !== loading) return;
    stored = id;
    props.value = { image: id, name, width: image.naturalWidth, height: image.naturalHeight, mask: null };
    trigger("change");
  } catch (error) {
    if (turn !== loading) return;
    remove();
    fail(error.name === "EncodingError" ? "This file is not a picture that the browser can show." : error.message);
  } finally {
    box.classList.remove("busy");
  }
}

async function fetched(value) {
  const turn = ++loading;
  fail("");
  stored = value.image;
  try {
    await show(`api/v1/inputs/${value.image}`, value.name || "");
    if (value.mask) await lay(`api/v1/inputs/${value.mask}`, value.mask);
    if (turn === loading) props.value = { image: value.image, name: value.name || "", width: image.naturalWidth, height: image.naturalHeight, mask: value.mask || null };
  } catch {
    if (turn === loading) fail("The picture could not be loaded.");
  }
}

/** Put a mask under the strokes; `digest` names it when it is stored already. */
async function lay(url, digest) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  base = { picture, digest };
  strokes = [];
  redraw();
}

async function takeMask(chosen) {
  fail("");
  try {
    await lay(URL.createObjectURL(chosen), null);
    changed();
  } catch {
    fail("This file is not a picture that the browser can show.");
  }
}

function remove() {
  loading++;
  stored = null;
  strokes = [];
  base = saved = null;
  image.removeAttribute("src");
  file.value = "";
  box.classList.remove("has-picture");
  if (props.value) props.value = null;
}

// --- painting -------------------------------------------------------------------------------------------------

/** White with dark stripes, about eight screen pixels wide whatever the picture's size. */
function hatching(context) {
  const scale = Math.max(1, Math.round(mask.width / (mask.clientWidth || mask.width)));
  const side = 12 * scale, tile = document.createElement("canvas");
  tile.width = tile.height = side;
  const pen = tile.getContext("2d");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, side, side);
  pen.strokeStyle = "#27272a";
  pen.lineWidth = side / 4;
  for (const shift of [-side, 0, side]) { pen.beginPath(); pen.moveTo(shift - 2, side + 2); pen.lineTo(shift + side + 2, -2); pen.stroke(); }
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / zoom));
  return pattern;
}

/** One stroke, with `cut` taken away from what is there. */
function draw(context, one, colour, cut = one.erase && colour === INK) {
  const scale = colour === INK ? zoom : 1;
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.globalCompositeOperation = cut ? "destination-out" : "source-over";
  const ink = one.erase ? "#000" : colouring ? one.colour : null;
  const paint = colour === INK ? (ink ?? hatching(context)) : one.erase ? "#000" : colour;
  context.strokeStyle = context.fillStyle = paint;
  context.lineWidth = one.radius * 2;
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  const [x, y] = one.points;
  if (one.points.length === 2) {
    context.arc(x, y, one.radius, 0, Math.PI * 2);
    context.fill();
    return;
  }
  context.moveTo(x, y);
  for (let i = 2; i < one.points.length; i += 2) context.lineTo(one.points[i], one.points[i + 1]);
  context.stroke();
}

function redraw() {
  const context = mask.getContext("2d");
  context.globalCompositeOperation = "source-over";
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.clearRect(0, 0, mask.width, mask.height);
  if (base) context.drawImage(stencil(), 0, 0);
  for (const one of strokes) draw(context, one, INK);
  box.classList.toggle("has-mask", hasMask());
}

const hasMask = () => strokes.length > 0 || base !== null;

/** The hatching where the mask from a file is white. */
function stencil() {
  const sheet = document.createElement("canvas");
  sheet.width = mask.width;
  sheet.height = mask.height;
  const context = sheet.getContext("2d", { willReadFrequently: true });
  context.drawImage(base.picture, 0, 0, sheet.width, sheet.height);
  const cut = context.getImageData(0, 0, sheet.width, sheet.height), dots = cut.data;
  for (let i = 0; i < dots.length; i += 4) dots[i + 3] *= (dots[i] + dots[i + 1] + dots[i + 2]) / 765;
  context.putImageData(cut, 0, 0);
  context.globalCompositeOperation = "source-in";
  context.fillStyle = hatching(context);
  context.setTransform(zoom, 0, 0, zoom, 0, 0);
  context.fillRect(0, 0, sheet.width, sheet.height);
  return sheet;
}

function takeBack() {
  if (strokes.length) strokes.pop();
  else base = null;
  redraw();
  changed();
}

function radius() {
  // The slider is a share of the picture's shorter side, so that a brush feels the same on any picture.
  return Math.max(0.5, (Number(size.value) / 400) * Math.min(image.naturalWidth, image.naturalHeight));
}

function place(event) {
  const rect = mask.getBoundingClientRect();
  return [((event.clientX - rect.left) / rect.width) * image.naturalWidth, ((event.clientY - rect.top) / rect.height) * image.naturalHeight];
}

function moveCursor(event) {
  const rect = mask.getBoundingClientRect();
  const width = (radius() * 2 * rect.width) / image.naturalWidth;
  cursor.style.width = cursor.style.height = `${width}px`;
  cursor.style.transform = `translate(${event.clientX - rect.left - width / 2}px, ${event.clientY - rect.top - width / 2}px)`;
}

function changed() {
  if (props.value?.mask || props.value?.painted) props.value = { ...props.value, mask: null, painted: null };
  box.classList.toggle("has-mask", hasMask());
}

if (paintable) {
  mask.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || !box.classList.contains("has-picture")) return;
    event.preventDefault();
    box.focus({ preventScroll: true });  // so that Ctrl+Z is heard
    mask.setPointerCapture(event.pointerId);
    if (colouring && event.altKey) return pick(place(event));
    stroke = { radius: radius(), erase: erasing, colour: pot?.value, points: place(event) };
    strokes.push(stroke);
    draw(mask.getContext("2d"), stroke, INK);
  });
  mask.addEventListener("pointermove", (event) => {
    moveCursor(event);
    if (!stroke) return;
    for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) stroke.points.push(...place(one));
    draw(mask.getContext("2d"), stroke, INK);
  });
  const end = () => { if (stroke) { stroke = null; changed(); } };
  mask.addEventListener("pointerup", end);
  mask.addEventListener("pointercancel", end);
  mask.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    size.value = Number(size.value) + (event.deltaY < 0 ? 3 : -3);
    moveCursor(event);
  }, { passive: false });
}

/** A sheet of the picture's own size. */
function blank() {
  const sheet = document.createElement("canvas");
  sheet.width = image.naturalWidth;
  sheet.height = image.naturalHeight;
  return sheet;
}

const stored_png = async (sheet) => window.webui.store(await new Promise((resolve) => sheet.toBlob(resolve, "image/png")));

/** White where strokes and the mask from a file are. */
function mask_sheet() {
  const sheet = blank(), context = sheet.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, sheet.width, sheet.height);
  if (base) context.drawImage(base.picture, 0, 0, sheet.width, sheet.height);
  for (const one of strokes) draw(context, one, "#fff");
  return sheet;
}

/** The picture with what was painted on it. */
function painted_sheet() {
  const layer = blank(), sheet = blank(), context = sheet.getContext("2d"), pen = layer.getContext("2d");
  for (const one of strokes) {
    draw(pen, one.erase ? { ...one, erase: false } : one, one.erase ? "#000" : one.colour, one.erase);
  }
  context.drawImage(image, 0, 0, sheet.width, sheet.height);
  context.drawImage(layer, 0, 0);
  return sheet;
}

/** Digests of the mask and of the painted picture, null for what there is none of. */
async function uploaded() {
  if (!strokes.length && (!base || base.digest)) return { mask: base && base.digest, painted: null };
  const drawn = JSON.stringify(strokes);
  if (!saved || saved.base !== base || saved.strokes !== drawn) {
    const mask = masking ? await stored_png(mask_sheet()) : null;
    const painted = colouring && strokes.length ? await stored_png(painted_sheet()) : null;
    saved = { base, strokes: drawn, mask, painted };
  }
  return { mask: saved.mask, painted: saved.painted };
}

/** Take the colour at a place, of the picture or of what is painted on it. */
function pick([x, y]) {
  const [red, green, blue] = painted_sheet().getContext("2d").getImageData(Math.floor(x), Math.floor(y), 1, 1).data;
  pot.value = `#${[red, green, blue].map((one) => one.toString(16).padStart(2, "0")).join("")}`;
}

// Called by Generate: the value with the mask as it is on the screen now.
window.webui.canvases[element.closest("[id]:not([id^='html-'])")?.id] = async () => {
  await taking;
  if (!props.value?.image) return null;
  if (!paintable) return props.value;
  try {
    const { mask, painted } = await uploaded();
    if (props.value.mask !== mask || (props.value.painted || null) !== painted) props.value = { ...props.value, mask, painted };
  } catch (error) {
    fail(error.message);
  }
  return props.value;
};

// --- choosing, dropping, pasting -------------------------------------------------------------------------------

element.addEventListener("click", (event) => {
  if (event.target.closest(".canvas-empty")) return file.click();
  const action = event.target.closest("[data-do]")?.dataset.do;
  if (action === "remove") { remove(); trigger("change"); }
  if (action === "undo") takeBack();
  if (action === "mask") part("mask-file").click();
  if (action === "clear") { strokes = []; base = null; redraw(); changed(); }
  if (action === "erase") {
    erasing = !erasing;
    event.target.closest("[data-do]").setAttribute("aria-pressed", erasing);
  }
});
file.addEventListener("change", () => { if (file.files[0]) take(file.files[0], file.files[0].name); });
part("mask-file").addEventListener("change", ({ target }) => {
  if (target.files[0]) takeMask(target.files[0]);
  target.value = "";  // so that the same file can be chosen again
});
box.addEventListener("dragover", (event) => { event.preventDefault(); box.classList.add("over"); });
box.addEventListener("dragleave", () => box.classList.remove("over"));
box.addEventListener("drop", async (event) => {
  event.preventDefault();
  box.classList.remove("over");
  const dropped = await window.webui.droppedFile(event);
  if (dropped) take(dropped, dropped.name);
});
box.addEventListener("paste", (event) => {
  const pasted = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
  if (pasted) { event.preventDefault(); take(pasted, pasted.name); }
});
box.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key === "z" && paintable) { event.preventDefault(); takeBack(); }
});

watch("value", () => {
  const value = props.value;
  if (!value?.image) { if (stored) remove(); } else if (value.image !== stored || (value.at && value.mask)) fetched(value);
});
if (props.value?.image) fetched(props.value);
