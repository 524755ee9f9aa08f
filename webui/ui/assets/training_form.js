// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// The form holds all values itself and sends them along with its events; Python fills fields through the value.
const form = element.querySelector("form");
const DRAFT = "webui.training.form";
const CHECKED = /^(kind|checkpoint|data\..*)$/;  // fields that change what the folder check says
const inputs = () => [...form.querySelectorAll("[name]:not([type=radio])")];
const input = (name) => form.querySelector(`[name="${CSS.escape(name)}"]:not([type=radio])`);
const kindButton = () => form.querySelector("[name=kind]:checked");

let turn = 0;      // counts the questions about the folder, so that a late answer does not win
let items = 0;     // pictures of an epoch, 0 while unknown
let asked = "";    // what was asked last

const read = (node) => (node.type === "checkbox" ? node.checked : node.value);

function write(node, value) {
  if (node.type === "checkbox") node.checked = value === true;
  else if (node.tagName !== "SELECT" || [...node.options].some((one) => one.value === value)) node.value = value;
}

function values() {
  const found = { kind: kindButton().value };
  for (const node of inputs()) found[node.name] = read(node);
  return found;
}

function keep() {
  try { sessionStorage.setItem(DRAFT, JSON.stringify(values())); } catch { /* storage is switched off */ }
}

/** What the chosen kind recommends for a field, else what a fresh form holds. */
function recommended(button, name) {
  const own = JSON.parse(button.dataset.recommended)[name];
  return own ?? input(name)?.dataset.default;
}

let before = kindButton();
/** Show the kind's options; fields that nobody changed take what it recommends. */
function showKind(follow) {
  const button = kindButton();
  form.querySelector(".tf-summary").textContent = button.dataset.summary;
  for (const panel of form.querySelectorAll("[data-kind]")) {
    panel.hidden = panel.dataset.kind !== button.value || !panel.querySelector("[name], .tf-problem");
  }
  if (follow && before !== button) {
    const names = [before, button].flatMap((one) => Object.keys(JSON.parse(one.dataset.recommended)));
    for (const name of new Set(names)) {
      const node = input(name);
      if (node && String(read(node)) === String(recommended(before, name))) write(node, recommended(button, name));
    }
  }
  before = button;
}

function duration(epochs) {
  return epochs >= 10 ? String(Math.round(epochs)) : epochs.toFixed(1).replace(/\.0$/, "");
}

function showEpochs() {
  const [steps, batch] = ["steps", "batch_size"].map((name) => Number(input(name).value));
  const place = form.querySelector(".tf-epochs");
  if (!(items > 0 && steps > 0 && batch > 0)) place.textContent = "";
  else {
    const epochs = duration((steps * batch) / items);
    place.textContent = `${steps} steps of ${batch} show every picture ${epochs === "1" ? "once" : `${epochs} times`} (epochs).`;
  }
}

function look(force) {
  const now = values();
  const about = JSON.stringify(Object.entries(now).filter(([name]) => CHECKED.test(name)));
  if (!force && about === asked) return;
  asked = about;
  turn++;
  const place = form.querySelector(".tf-data");
  items = 0;
  showEpochs();
  if (!now["data.folder"].trim()) return place.replaceChildren();
  place.classList.add("busy");
  if (!place.childElementCount) place.textContent = "Reading the pictures…";
  trigger("look", { values: now, turn });
}

function fill(set) {
  const button = [...form.querySelectorAll("[name=kind]")].find((one) => one.value === set.kind);
  if (button) button.checked = true;
  for (const [name, value] of Object.entries(set)) {
    const node = input(name);
    if (node) write(node, value);
  }
  showKind(false);
  keep();
  look(false);
}

function listModels(checkpoints) {
  const node = input("checkpoint");
  const chosen = node.value;
  node.replaceChildren(...checkpoints.map(([title, name]) => new Option(title, name)));
  if (checkpoints.some(([, name]) => name === chosen)) node.value = chosen;
}

form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", (event) => {
  if (["steps", "batch_size"].includes(event.target.name)) showEpochs();
});
form.addEventListener("change", (event) => {
  if (event.target.name === "kind") showKind(true);
  showEpochs();
  keep();
  if (CHECKED.test(event.target.name)) look(false);
});
form.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.ctrlKey && !event.metaKey && event.target.name === "data.folder") look(true);
});
form.querySelector("#train_refresh").onclick = () => trigger("refresh", { values: {} });

window.webui.trainingForm = {
  begin() {
    keep();
    trigger("begin", { values: values() });
  },
};

watch("value", () => {
  const { set, checked, checkpoints } = props.value || {};
  if (checkpoints) listModels(checkpoints);
  if (set) fill(set);
  if (checked && checked.turn === turn) {
    const place = form.querySelector(".tf-data");
    place.classList.remove("busy");
    place.innerHTML = checked.html;  // escaped by training_texts
    items = checked.items;
    showEpochs();
  }
});

try { fill(JSON.parse(sessionStorage.getItem(DRAFT)) || {}); } catch { showKind(false); }
