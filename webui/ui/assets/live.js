// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// Follows jobs over /api/v1/jobs/{id}/events; asks Python only at the end of a job ('finished') and when the page is
// opened again ('attached').
const part = (name) => element.querySelector(`.live-${name}`);
const card = part("card");
const tab = card.dataset.tab;
const KEY = `webui.jobs.${tab}`;
const api = (path, options) => fetch(`api/v1/${path}`, { headers: { Accept: "application/json" }, ...options });

let current = null;       // the id that is shown
let waiting = [];         // ids of this tab that come after it
let stream = null;        // its EventSource
let poll = null;          // timer while it is queued
let interrupted = false;  // the person pressed Interrupt for `current`

settle();
window.webui.live[tab] = {
  running: () => current !== null,
  interrupt() {
    if (!current) return;
    interrupted = true;
    part("phase").textContent = "Interrupting…";
    api(`jobs/${current}`, { method: "DELETE" });
  },
  skip() {
    if (current) api(`jobs/${current}/skip`, { method: "POST" });
  },
};

function remember(last) {
  const text = JSON.stringify({ ids: current ? [current, ...waiting] : waiting, last });
  try { sessionStorage.setItem(KEY, text); localStorage.setItem(KEY, text); } catch { /* storage is switched off */ }
}

function recall() {
  try { return JSON.parse(sessionStorage.getItem(KEY) || localStorage.getItem(KEY)) || {}; } catch { return {}; }
}

function settle() {
  const empty = card.dataset.state === "empty" && !part("empty").childElementCount;
  card.toggleAttribute("data-idle", !card.classList.contains("has-error") && (empty || card.dataset.state === "over"));
}

function setState(state) {
  card.dataset.state = state;
  settle();
  document.body.classList.toggle(`running-${tab}`, state === "running");
}

function duration(seconds) {
  const whole = Math.max(1, Math.round(seconds));
  if (whole < 60) return `${whole} s`;
  return whole < 3600 ? `${Math.floor(whole / 60)} min ${whole % 60} s` : `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} min`;
}

function sentence(phase) {
  return phase ? phase[0].toUpperCase() + phase.slice(1) : "Working";
}

function showProgress(progress) {
  const { step = 0, steps = 0, picture = 0, pictures = 0, eta_s: eta, phase } = progress;
  const share = steps ? Math.min(1, step / steps) : 0;
  const words = [sentence(phase)];
  if (steps && step) words.push(`step ${step} of ${steps}`);
  if (pictures > 1 && picture) words.push(`picture ${picture} of ${pictures}`);
  if (waiting.length) words.push(`${waiting.length} more queued`);
  if (!interrupted) part("phase").textContent = words.join(" · ");
  const left = eta === null || eta === undefined ? "" : `${duration(eta)} left`;
  part("eta").textContent = steps ? `${Math.round(share * 100)} %${left ? ` · ${left}` : ""}` : left;
  part("fill").style.width = `${share * 100}%`;
  part("bar").classList.toggle("indefinite", !step);
  part("bar").setAttribute("aria-valuenow", Math.round(share * 100));
  if (progress.preview) showPreview(progress.preview);
  window.webui.title(tab, steps ? `[${Math.round(share * 100)}%${left ? ` ${duration(eta)}` : ""}]` : "[…]");
}

function showPreview(number) {
  const preview = part("preview");
  if (Number(preview.dataset.number || 0) >= number) return;
  preview.dataset.number = number;
  preview.src = `api/v1/jobs/${current}/preview?n=${number}`;
  card.classList.add("has-preview");
}

function showPicture(output) {
  if (element.querySelector(`[data-output="${CSS.escape(output.id)}"]`)) return;
  const link = document.createElement("a");
  link.href = `api/v1/pictures/${output.id}`;
  link.target = "_blank";
  link.dataset.output = output.id;
  const picture = document.createElement("img");
  picture.src = link.href;
  picture.alt = `Finished picture, seed ${output.seed}`;
  link.append(picture);
  part("strip").append(link);
  card.classList.add("has-pictures");
}

function showError(text) {
  part("error").textContent = text;
  card.classList.toggle("has-error", Boolean(text));
  settle();
}

function clearStage() {
  const preview = part("preview");
  preview.removeAttribute("src");
  delete preview.dataset.number;
  card.classList.remove("has-preview");
}

function clearStrip() {
  part("strip").replaceChildren();
  card.classList.remove("has-pictures");
}

function follow(id) {
  if (!id || id === current || waiting.includes(id)) return;
  waiting.push(id);
  remember();
  if (!current) next();
}

function next() {
  current = waiting.shift() || null;
  interrupted = false;
  remember();
  if (!current) return;
  showError("");
  clearStage();
  setState("running");
  showProgress({ phase: "waiting" });
  open(current);
}

async function open(id) {
  let job = null;
  try {
    const answer = await api(`jobs/${id}`);
    if (answer.status === 404) return over(id, "failed", "The job is no longer known.");
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    job = await answer.json();
  } catch {
    part("phase").textContent = "Connection lost · trying again";
    setTimeout(() => current === id && open(id), 2000);
    return;
  }
  if (current !== id) return;
  job.outputs.forEach(showPicture);
  if (["done", "failed", "interrupted"].includes(job.state)) return over(id, job.state, job.error);
  showProgress(job.progress);
  if (job.state === "queued") watchQueue(id, job.ahead);
  listen(id);
}

function watchQueue(id, ahead) {
  const show = (count) => {
    if (count > 0) part("phase").textContent = `In queue · ${count} job${count === 1 ? "" : "s"} ahead`;
  };
  show(ahead);
  clearInterval(poll);
  poll = setInterval(async () => {
    const answer = await api(`jobs/${id}`).catch(() => null);
    const job = answer && answer.ok ? await answer.json() : null;
    if (current !== id || (job && job.state !== "queued")) clearInterval(poll);
    else if (job) show(job.ahead);
  }, 1500);
}

function listen(id) {
  stream?.close();
  stream = new EventSource(`api/v1/jobs/${id}/events`);
  const on = (kind, handle) => stream.addEventListener(kind, (event) => current === id && handle(JSON.parse(event.data)));
  for (const kind of ["started", "step", "preview"]) {
    on(kind, (data) => { clearInterval(poll); showProgress(data); });
  }
  on("picture", (data) => { showPicture(data); });
  on("done", () => over(id, "done"));
  on("failed", (data) => over(id, "failed", data.error));
  on("interrupted", () => over(id, "interrupted"));
  stream.onerror = () => {
    if (stream.readyState === EventSource.CLOSED && current === id) setTimeout(() => current === id && open(id), 1500);
  };
}

function over(id, state, error) {
  stream?.close();
  stream = null;
  clearInterval(poll);
  window.webui.title(tab, "");
  const kept = part("strip").childElementCount;
  current = null;
  if (state === "failed") showError(error || "The job failed.");
  if (state === "interrupted" && !kept) showError("Interrupted before the first picture was finished.");
  trigger("finished", { job: id });
  if (waiting.length) next();
  else {
    setState("over");
    remember(id);
  }
}

watch("value", () => {
  const value = props.value;
  if (!value) return;
  if (value.job) {
    if (!current) clearStrip();
    follow(value.job);
  }
  if (value.error) {
    showError(value.error);
    if (!current) setState("over");
  }
  if (value.shown) card.dataset.shown = value.shown;
  if (value.shown && !current) {
    clearStage();
    clearStrip();
    setState("over");
  }
});

function isMine(job) {
  const kind = job.kind === "reproduce" ? "pnginfo" : job.request.start ? "img2img" : "txt2img";
  return kind === tab;
}

(async () => {
  const { ids = [], last } = recall();
  const answer = await api("jobs?state=active").catch(() => null);
  const listed = answer && answer.ok ? await answer.json() : [];
  const mine = (Array.isArray(listed) ? listed : listed.jobs).filter(isMine);
  // The fields come back for a job of this browser; a job started elsewhere is only followed.
  const own = mine.find((job) => ids.includes(job.id))?.id || last;
  if (own && tab !== "pnginfo" && !current) trigger("attached", { job: own });
  mine.forEach((job) => follow(job.id));
})();
