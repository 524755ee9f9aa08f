// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// Units are made from a panel's template when it is opened or has a value; the form itself holds what is typed.
const root = element.querySelector(".modules");
const tab = root.dataset.tab;
let told = "[]";  // the value as this script last told or heard it

class Unit {
  constructor(panel, number) {
    this.node = document.createElement("section");
    this.node.className = "mod-unit";
    this.node.dataset.unit = number;
    this.node.append(panel.template.content.cloneNode(true));
    this.node.hidden = number > 0;
    this.module = panel.module;
    this.id = `${panel.node.id}_${number}`;
    this.enable = this.node.querySelector(".mod-enable input");
    this.others = {};   // options that have no field
    this.canvases = {};
    this.fields = [...this.node.querySelectorAll("[data-field]")];
    for (const field of this.fields) this.prepare(field);
  }

  prepare(field) {
    const { field: name, holds } = field.dataset;
    field.id = `${this.id}_${name}`;
    for (const button of field.querySelectorAll("[type=radio]")) button.name = field.id;
    if (holds === "picture") this.canvases[name] = canvasIn(field.querySelector(".picture-canvas"), `${field.id}_canvas`, () => this.begin());
    else if (holds === "paint") this.canvases[name] = window.webui.painterIn(field, `${field.id}_canvas`, () => this.scene(), (painted) => { if (painted) this.begin(); keep(); });
    else write(field, JSON.parse(field.dataset.default));
    const range = field.querySelector("[type=range]"), number = field.querySelector("[type=number]");
    if (!range || !number) return;
    range.addEventListener("input", () => { number.value = range.value; });
    number.addEventListener("input", () => { range.value = number.value; });
  }

  get on() { return this.enable.checked; }

  /** A person chose a picture or painted one: that is meant to be used. */
  begin() { if (!filling) this.enable.checked = true; }

  /** The options as they are on the screen; a mask that was painted since is not among them. */
  options() {
    const found = { ...this.others };
    for (const field of this.fields) {
      const { field: name, mask } = field.dataset;
      if (!this.canvases[name]) found[name] = read(field);
      else {
        const picture = this.canvases[name].value;
        found[name] = picture?.image || "";
        if (mask) found[mask] = (found[name] && picture.mask) || "";
      }
    }
    return found;
  }

  /** The options, painted masks stored. */
  async stored() {
    for (const canvas of Object.values(this.canvases)) await window.webui.canvas(canvas.id, null);
    return this.options();
  }

  fill(options) {
    this.enable.checked = Boolean(options);
    const given = { ...options };
    for (const field of this.fields) {
      const { field: name, mask } = field.dataset;
      const value = name in given ? given[name] : JSON.parse(field.dataset.default);
      if (this.canvases[name]) this.canvases[name].show(value, mask ? given[mask] : "");
      else write(field, value);
      delete given[name];
      delete given[mask];
    }
    this.others = given;
    this.react();
  }

  /** What a painter paints for: the module with its options, the request as it is on the page, what lies behind. */
  scene() {
    const { size, behind } = frame();
    const text = (name) => document.querySelector(`#${tab}_${name} textarea`)?.value ?? "";
    const request = { prompt: text("prompt"), negative_prompt: text("neg_prompt"), size };
    return { name: this.module, options: this.options(), request, behind };
  }

  /** Show what depends on other options. */
  react() {
    const values = this.options();
    for (const field of this.fields) {
      if (!field.dataset.when) continue;
      const [name, wanted] = JSON.parse(field.dataset.when);
      field.hidden = values[name] !== wanted;
    }
  }

  async preview() {
    const place = this.node.querySelector(".mod-preview"), image = place.querySelector("img"), error = place.querySelector(".mod-error");
    error.textContent = "";
    place.classList.add("busy");
    try {
      const body = JSON.stringify({ name: this.module, options: await this.stored() });
      const answer = await fetch("api/v1/modules/preview", { method: "POST", body, headers: { "Content-Type": "application/json" } });
      if (!answer.ok) {
        const data = await answer.json().catch(() => ({}));
        throw new Error(data.error || `There is no preview (HTTP ${answer.status}).`);
      }
      URL.revokeObjectURL(image.src);
      image.src = URL.createObjectURL(await answer.blob());
      await image.decode();
      image.hidden = false;
    } catch (problem) {
      image.hidden = true;
      error.textContent = problem.message;
    } finally {
      place.classList.remove("busy");
    }
  }
}

const FITS = { "Just resize": "fill", "Crop and resize": "cover", "Resize and fill": "contain" };

/** The size of the picture to be made, as near as a request may have it, and the start image that it is made of. */
function frame() {
  const side = (name) => Number(document.querySelector(`#${tab}_${name} input[type=number]`)?.value);
  const start = [...document.querySelectorAll(`#mode_${tab} .has-picture .canvas-image`)].find((one) => one.naturalWidth && one.checkVisibility());
  const scale = document.getElementById(`${tab}_scale`), by = scale?.checkVisibility() && start;
  const [width, height] = by ? [start.naturalWidth, start.naturalHeight].map((one) => one * Number(scale.querySelector("[type=number]").value)) : [side("width"), side("height")];
  const allowed = (one) => Math.max(64, Math.min(4096, Math.round((one || 512) / 8) * 8));
  const mode = document.querySelector("#resize_mode input:checked")?.value;
  return { size: { width: allowed(width), height: allowed(height) }, behind: start ? { src: start.src, fit: by ? "fill" : FITS[mode] || "fill" } : null };
}

/** A picture canvas inside of this widget: its value, and how to show another one; `begun` hears of a picture chosen. */
function canvasIn(node, id, begun) {
  let value = null, hear = () => {};
  node.id = id;
  const own = { get value() { return value; }, set value(next) { if (next?.image && next.image !== value?.image) begun(); value = next; keep(); } };
  window.webui.canvasIn(node, () => keep(), own, (name, heard) => { hear = heard; });
  return {
    id,
    get value() { return value; },
    show(image, mask) {
      if ((value?.image || "") === image && (value?.mask || "") === (mask || "") && !node.querySelector(".has-mask")) return;
      value = null;
      hear();
      if (!image) return;
      value = { image, name: "", mask: mask || null, at: Date.now() };
      hear();
    },
  };
}

function read(field) {
  const control = field.querySelector("input, select, textarea");
  switch (field.dataset.holds) {
    case "flag": return control.checked;
    case "radio": return JSON.parse(field.querySelector(":checked")?.value ?? field.dataset.default);
    case "choice": return control.value === "" ? "" : JSON.parse(control.value);
    case "number": {
      const text = field.querySelector("[type=number]").value;
      return text === "" ? null : Number(text);
    }
    default: return control.value;
  }
}

function write(field, value) {
  const control = field.querySelector("input, select, textarea");
  const marked = JSON.stringify(value);
  switch (field.dataset.holds) {
    case "flag": control.checked = value === true; break;
    case "radio": for (const one of field.querySelectorAll("input")) one.checked = one.value === marked; break;
    case "choice":
      if (![...control.options].some((one) => one.value === marked)) control.add(new Option(String(value), marked));
      control.value = marked;
      break;
    case "number": for (const one of field.querySelectorAll("input")) one.value = value ?? ""; break;
    default: control.value = value ?? "";
  }
}

class Panel {
  constructor(node) {
    this.node = node;
    this.module = node.dataset.module;
    this.template = node.querySelector("template");
    this.units = [];
    node.addEventListener("toggle", () => { if (node.open) { this.build(); list(); } });
    node.addEventListener("click", (event) => {
      const button = event.target.closest(".mod-tabs [data-unit]");
      if (button) this.choose(Number(button.dataset.unit));
      if (event.target.closest("[data-do=preview]")) this.unitOf(event.target).preview();
    });
    node.addEventListener("input", (event) => this.changed(event.target));
    node.addEventListener("change", (event) => this.changed(event.target));
  }

  unitOf(target) { return this.units[Number(target.closest(".mod-unit").dataset.unit)]; }

  changed(target) {
    if (!target.closest(".mod-unit")) return;
    this.unitOf(target).react();
    keep();
  }

  build() {
    if (this.units.length) return;
    for (let number = 0; number < Number(this.node.dataset.units); number++) {
      const unit = new Unit(this, number);
      this.units.push(unit);
      this.node.querySelector(".mod-units").append(unit.node);
      unit.react();
    }
  }

  choose(number) {
    for (const unit of this.units) unit.node.hidden = Number(unit.node.dataset.unit) !== number;
    for (const button of this.node.querySelectorAll(".mod-tabs button")) {
      button.setAttribute("aria-selected", Number(button.dataset.unit) === number);
    }
  }

  fill(uses) {
    if (!uses.length && !this.units.length) return;
    this.build();
    this.units.forEach((unit, number) => unit.fill(uses[number]?.options ?? null));
    if (uses.length) this.node.open = true;
    this.choose(0);
  }

  mark() {
    const on = this.units.filter((unit) => unit.on);
    this.node.classList.toggle("on", on.length > 0);
    this.node.querySelector(".mod-count").textContent = on.length ? (this.units.length > 1 ? `${on.length} on` : "on") : "";
    for (const button of this.node.querySelectorAll(".mod-tabs button")) {
      button.classList.toggle("on", Boolean(this.units[Number(button.dataset.unit)]?.on));
    }
  }
}

const panels = [...root.querySelectorAll(".mod")].map((node) => new Panel(node));
const enabled = () => panels.flatMap((panel) => panel.units.filter((unit) => unit.on));

let filling = false;
/** Tell the form's value, as far as it is known without an upload. */
function keep() {
  if (filling) return;
  for (const panel of panels) panel.mark();
  const value = enabled().map((unit) => ({ name: unit.module, options: unit.options() }));
  if (JSON.stringify(value) === told) return;
  told = JSON.stringify(value);
  props.value = value;
}

function fill(uses) {
  filling = true;
  try {
    for (const panel of panels) panel.fill(uses.filter((use) => use.name === panel.module));
  } finally {
    filling = false;
  }
  keep();
}

/** Fill the lists of model files and preprocessors again. */
async function list() {
  const answer = await fetch("api/v1/modules?refresh=true").catch(() => null);
  if (!answer?.ok) return;
  const found = new Map((await answer.json()).map((one) => [one.name, one.schema.properties]));
  for (const panel of panels) {
    for (const unit of panel.units) {
      for (const field of unit.fields.filter((one) => one.querySelector("[data-listed]"))) {
        const chosen = read(field), entries = found.get(panel.module)?.[field.dataset.field]?.enum ?? [];
        field.querySelector("select").replaceChildren(...entries.map((one) => new Option(one || "None", JSON.stringify(one))));
        write(field, chosen);
      }
    }
  }
}

// Called by Generate: the value with every mask as it is on the screen now.
window.webui.modules[tab] = async () => Promise.all(enabled().map(async (unit) => ({ name: unit.module, options: await unit.stored() })));

watch("value", () => {
  const value = props.value || [];
  if (JSON.stringify(value) === told) return;
  told = JSON.stringify(value);
  fill(value);
});
if (props.value?.length) { told = JSON.stringify(props.value); fill(props.value); }
