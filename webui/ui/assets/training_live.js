// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// Asks the API for the training that is shown, and draws it.  It asks anew every second instead of listening: a training
// takes hours, and a browser keeps six connections to a server for all its pages together.
const find = (selector) => element.querySelector(selector);
const card = find(".train-card");
const LAST = "webui.training.last";
const SVG = "http://www.w3.org/2000/svg";
const api = (path, options) => fetch(`api/v1/${path}`, { headers: { Accept: "application/json" }, ...options });
const ACTIVE = ["queued", "running", "paused"];

let shown = null;     // the id of the training on the card
let job = null;       // its record as last heard
let view = null;      // losses, samples, left-out files
let asked = 0;        // counts the questions, so that a late answer does not win
let timer = null;
let viewed = 0;       // when the view was asked for, and for which step and state
let viewedFor = "";
let picked = null;    // the step whose samples a person chose; null: the newest
let wish = "";        // "Pausing…" until the server has done it

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

const upper = (text) => (text ? text[0].toUpperCase() + text.slice(1) : "");
const short = (value) => (value === 0 ? "0" : Math.abs(value) >= 0.01 && Math.abs(value) < 1000 ? String(Number(value.toPrecision(3))) : value.toExponential(1).replace("e+", "e"));

function showError(text) {
  find(".live-error").textContent = text;
  card.classList.toggle("has-error", Boolean(text));
}

function showJob() {
  const { state, progress, request } = job;
  card.dataset.state = state;
  find(".train-title strong").textContent = request.name;
  find(".train-title span").textContent = `${request.kind} · ${request.checkpoint || ""} · ${request.data.folder}`;
  const { step = 0, steps = 0, eta_s: eta, phase } = progress;
  const share = steps ? Math.min(1, step / steps) : 0;
  const words = { queued: job.ahead > 0 ? `In queue · ${job.ahead} ahead` : "Waiting", running: upper(phase) || "Working", paused: "Paused", done: "Done", failed: "Failed", interrupted: "Interrupted" };
  const line = [wish || words[state]];
  if (steps && step) line.push(`step ${step} of ${steps}`);
  find(".train-phase").textContent = line.join(" · ");
  const left = state !== "running" || eta === null || eta === undefined ? "" : `${duration(eta)} left`;
  const pace = left && steps > step && step ? `${short(eta / (steps - step))} s a step` : "";
  find(".live-eta").textContent = [steps ? `${Math.floor(share * 100)} %` : "", pace, left].filter(Boolean).join(" · ");
  find(".live-fill").style.width = `${share * 100}%`;
  find(".train-bar").classList.toggle("indefinite", ["queued", "running"].includes(state) && !step);
  find(".train-bar").setAttribute("aria-valuenow", Math.floor(share * 100));
  if (job.error) showError(job.error);
  else if (!find(".live-error").dataset.own) showError("");
  window.webui.title("train", state === "running" ? `[${Math.floor(share * 100)}%${left ? ` ${duration(eta)}` : ""}]` : "");
}

// --- loss curve ---------------------------------------------------------------------------------------------------
function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const size = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let at = Math.ceil(low / size) * size; at <= high + size * 1e-9; at += size) found.push(Math.abs(at) < size * 1e-9 ? 0 : at);
  return found;
}

function logTicks(low, high) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    for (const one of high / low > 1000 ? [1] : [1, 2, 5]) {
      const at = one * 10 ** power;
      if (at >= low && at <= high) found.push(at);
    }
  }
  return found;
}

let plotted = null;  // {losses, x, y} of the curve on the screen
function drawLoss(losses) {
  card.classList.toggle("has-loss", losses.length > 1);
  if (losses.length < 2) return;
  const sorted = losses.map((one) => one.loss).sort((a, b) => a - b);
  const quantile = (share) => sorted[Math.round(share * (sorted.length - 1))];
  const smooth = losses.map((one) => one.smooth);
  let low = Math.min(quantile(0.01), ...smooth);
  let high = Math.max(quantile(0.99), ...smooth);
  const isLog = low > 0 && high / low > 20;
  const scale = isLog ? Math.log10 : (value) => value;
  if (high === low) [low, high] = [low - Math.abs(low) * 0.1 - 1e-9, high + Math.abs(high) * 0.1 + 1e-9];
  const margin = (scale(high) - scale(low)) * 0.06;
  const [bottom, top] = [scale(low) - margin, scale(high) + margin];
  const [first, last] = [losses[0].step, losses.at(-1).step];
  const x = (step) => ((step - first) / Math.max(1, last - first)) * 1000;
  const y = (value) => 300 - ((scale(isLog ? Math.max(value, 1e-30) : value) - bottom) / (top - bottom)) * 300;
  const svg = find(".train-plot svg");
  svg.replaceChildren();
  const line = (name, points) => {
    const path = document.createElementNS(SVG, "polyline");
    path.setAttribute("class", name);
    path.setAttribute("points", points.map(([a, b]) => `${a.toFixed(1)},${b.toFixed(1)}`).join(" "));
    svg.append(path);
  };
  const label = (place, text, style, share) => {
    const mark = document.createElement("span");
    mark.textContent = text;
    mark.style[style] = `${share}%`;
    place.append(mark);
  };
  const [left, below] = [find(".train-y"), find(".train-x")];
  left.replaceChildren();
  below.replaceChildren();
  const marks = isLog ? logTicks(10 ** bottom, 10 ** top) : ticks(bottom, top, 4);
  for (const at of marks) {
    line("grid", [[0, y(at)], [1000, y(at)]]);
    label(left, short(at), "top", y(at) / 3);
  }
  for (const at of ticks(first, last, 5)) if (Number.isInteger(at)) label(below, String(at), "left", x(at) / 10);
  line("raw", losses.map((one) => [x(one.step), y(one.loss)]));
  line("smooth", losses.map((one) => [x(one.step), y(one.smooth)]));
  svg.setAttribute("aria-label", `Smoothed loss from ${short(losses[0].smooth)} to ${short(losses.at(-1).smooth)} at step ${last}`);
  plotted = { losses, first, last };
  tell(losses.at(-1));
  find(".train-legend").dataset.log = isLog ? " · logarithmic" : "";
}

function tell(point) {
  find(".train-loss output").textContent = `step ${point.step} · ${short(point.loss)} · smoothed ${short(point.smooth)} · rate ${short(point.rate)}`;
}

find(".train-plot").addEventListener("pointermove", (event) => {
  if (!plotted) return;
  const box = find(".train-plot svg").getBoundingClientRect();
  const step = plotted.first + ((event.clientX - box.left) / box.width) * (plotted.last - plotted.first);
  tell(plotted.losses.reduce((best, one) => (Math.abs(one.step - step) < Math.abs(best.step - step) ? one : best)));
});
find(".train-plot").addEventListener("pointerleave", () => plotted && tell(plotted.losses.at(-1)));

// --- samples, files -----------------------------------------------------------------------------------------------
function showSamples() {
  const steps = view.samples;
  card.classList.toggle("has-samples", steps.length > 0);
  if (!steps.length) return;
  const range = find(".train-samples input");
  const index = picked !== null && steps.includes(picked) ? steps.indexOf(picked) : steps.length - 1;
  range.max = steps.length - 1;
  range.value = index;
  range.hidden = steps.length < 2;
  const address = `api/v1/training/${shown}/samples/${steps[index]}.png`;
  const picture = find(".train-samples img");
  if (picture.getAttribute("src") !== address) picture.src = address;
  picture.alt = `Samples after step ${steps[index]}`;
  find(".train-samples a").href = address;
  const words = `after step ${steps[index]}${index === steps.length - 1 ? ", the newest" : ""}`;
  find(".train-samples output").textContent = words;
  range.setAttribute("aria-valuetext", words);
  const list = find(".train-samples ol");
  if (list.childElementCount !== view.request.samples.prompts.length) {
    list.replaceChildren(...view.request.samples.prompts.map((prompt) => Object.assign(document.createElement("li"), { textContent: prompt })));
  }
}

find(".train-samples input").addEventListener("input", (event) => {
  const index = Number(event.target.value);
  picked = index === view.samples.length - 1 ? null : view.samples[index];
  showSamples();
});

function showView() {
  drawLoss(view.losses);
  showSamples();
  const left = view.left_out;
  card.classList.toggle("has-left-out", left.length > 0);
  find(".train-left-out summary").textContent = `${left.length} file${left.length === 1 ? "" : "s"} left out`;
  find(".train-left-out ul").replaceChildren(...left.map((text) => Object.assign(document.createElement("li"), { textContent: text })));
  card.classList.toggle("has-file", Boolean(view.file));
  find(".train-file p").textContent = view.file ? `Saved as ${view.file}` : "";
}

// --- asking -------------------------------------------------------------------------------------------------------
function show(id) {
  if (id !== shown) {
    shown = id;
    job = view = plotted = picked = null;
    viewedFor = "";
    wish = "";
    card.classList.remove("has-loss", "has-samples", "has-left-out", "has-file");
    find(".train-samples ol").replaceChildren();
    find(".train-samples img").removeAttribute("src");
  }
  delete find(".live-error").dataset.own;
  showError("");
  try { localStorage.setItem(LAST, id); } catch { /* storage is switched off */ }
  ask();
}

async function ask() {
  clearTimeout(timer);
  const turn = ++asked;
  const late = () => turn !== asked;
  let wait = 3000;
  try {
    const answer = await api(`jobs/${shown}`);
    if (late()) return;
    if (answer.status === 404) return forget();
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const heard = await answer.json();
    if (late()) return;
    const was = job?.state;
    job = heard;
    if (was && was !== job.state) wish = "";
    showJob();
    if (was !== job.state) trigger("changed", {});
    const now = `${job.state} ${job.progress.step} ${job.files.length}`;
    if (now !== viewedFor && (was !== job.state || Date.now() - viewed > 2500)) {
      viewed = Date.now();
      const found = await api(`training/${shown}`);
      if (late()) return;
      if (found.ok) {
        view = await found.json();
        if (late()) return;
        viewedFor = now;
        showView();
      }
    }
    const isSeen = document.visibilityState === "visible" && element.checkVisibility();
    wait = !isSeen ? 5000 : job.state === "running" ? 700 : 1500;
    if (!ACTIVE.includes(job.state)) return;
  } catch {
    if (late()) return;
    find(".train-phase").textContent = "Connection lost · trying again";
  }
  timer = setTimeout(ask, wait);
}

function forget() {
  shown = null;
  card.dataset.state = "empty";
  try { localStorage.removeItem(LAST); } catch { /* storage is switched off */ }
}

/** Give an order; when the server does not take it, the page says why. */
async function order(path, method, words, id = shown) {
  if (!id) return;
  if (id === shown) {
    wish = words;
    if (job) showJob();
  }
  const answer = await api(`${path}`, { method }).catch(() => null);
  if (!answer?.ok) {
    wish = "";
    const said = answer ? await answer.json().catch(() => null) : null;
    ownError(said?.detail || said?.error || "The server did not take this; press again.");
  } else if (id === shown) delete find(".live-error").dataset.own;
  if (id === shown) ask();
}

function ownError(text) {
  find(".live-error").dataset.own = "yes";
  showError(String(text));
}

const train = (window.webui.live.train = {
  running: () => false,  // Escape and Alt+Enter are for pictures: no key ends what ran for hours
  pause: () => order(`training/${shown}/pause`, "POST", "Pausing…"),
  interrupt: () => order(`jobs/${shown}`, "DELETE", "Interrupting…"),
  go_on: () => train.goOn(shown),
  goOn(id) {
    if (id !== shown) show(id);
    return order(`training/${id}/go-on`, "POST", "Going on…", id);
  },
  show(id) {
    show(id);
    card.scrollIntoView({ block: "nearest", behavior: "smooth" });
  },
  settings: (id) => trigger("settings", { job: id }),
});

find("#train_start").onclick = () => window.webui.trainingForm?.begin();
find("#train_use").onclick = () => trigger("use", { job: shown });
document.addEventListener("visibilitychange", () => { if (shown && job && ACTIVE.includes(job.state)) ask(); });

watch("value", () => {
  const value = props.value;
  if (value?.error) {
    ownError(value.error);
    card.scrollIntoView({ block: "nearest", behavior: "smooth" });
  }
  if (value?.job) train.show(value.job);
});

(async () => {
  const answer = await api("jobs?state=active").catch(() => null);
  const jobs = answer?.ok ? await answer.json() : [];
  let last = null;
  try { last = localStorage.getItem(LAST); } catch { /* storage is switched off */ }
  const id = jobs.find((one) => one.kind === "train")?.id || last;
  if (id && !shown) show(id);
  else if (!shown) trigger("changed", {});
})();
