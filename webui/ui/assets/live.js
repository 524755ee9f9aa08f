// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// Follows jobs over /api/v1/jobs/{id}/events; asks Python only at the end of a job ('finished') and when the page is
// opened again ('attached').  A browser keeps six connections to a server, for all its pages together: only a page on
// the screen holds one for the running job, the others ask now and then.
const part = (name) => element.querySelector(`.live-${name}`);
const card = part("card");
const tab = card.dataset.tab;
const KEY = `webui.jobs.${tab}`;
const api = (path, options) => fetch(`api/v1/${path}`, { headers: { Accept: "application/json" }, ...options });

let current = null;       // the id that is shown
let waiting = [];         // ids of this tab that come after it
let stream = null;        // its EventSource
let heard = 0;            // number of its last event
let timer = null;         // until it is asked for again
let asked = 0;            // counts the questions, so that a late answer does not win
let interrupted = false;  // the person pressed Interrupt for `current`

settle();
window.webui.live[tab] = {
  running: () => current !== null,
  async interrupt() {
    if (!current) return;
    interrupted = true;
    part("phase").textContent = "Interrupting…";
    if (!(await told(current, "", "DELETE"))) interrupted = false;
  },
  async skip() {
    if (current) await told(current, "/skip", "POST");
  },
};

/** Whether the server took the order; when not, the page says so as long as the job runs. */
async function told(id, order, method) {
  const answer = await api(`jobs/${id}${order}`, { method }).catch(() => null);
  if (current === id) showError(answer?.ok ? "" : "The server did not take this; press again.");
  return Boolean(answer?.ok);
}

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
  heard = 0;
  remember();
  if (!current) return;
  showError("");
  clearStage();
  setState("running");
  showProgress({ phase: "waiting" });
  open(current);
}

async function open(id) {
  const turn = ++asked;
  const again = (wait) => { timer = setTimeout(() => turn === asked && open(id), wait); };
  close();
  let job = null;
  try {
    const answer = await api(`jobs/${id}`);
    if (turn !== asked || current !== id) return;
    if (answer.status === 404) return over(id, "failed", "The job is no longer known.");
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    job = await answer.json();
  } catch {
    if (turn !== asked || current !== id) return;
    part("phase").textContent = "Connection lost · trying again";
    again(2000);
    return;
  }
  if (turn !== asked || current !== id) return;
  job.outputs.forEach(showPicture);
  if (["done", "failed", "interrupted"].includes(job.state)) return over(id, job.state, job.error);
  showProgress(job.progress);
  if (job.state === "queued" && job.ahead > 0) {
    if (!interrupted) part("phase").textContent = `In queue · ${job.ahead} job${job.ahead === 1 ? "" : "s"} ahead`;
    again(1500);
  } else if (document.visibilityState === "hidden") again(2000);
  else listen(id);
}

function close() {
  clearTimeout(timer);
  stream?.close();
  stream = null;
}

function listen(id) {
  const source = (stream = new EventSource(`api/v1/jobs/${id}/events?after=${heard}`));
  const on = (kind, handle) => source.addEventListener(kind, (event) => {
    if (source !== stream) return;
    heard = Number(event.lastEventId) || heard;
    handle(JSON.parse(event.data));
  });
  for (const kind of ["started", "step", "preview"]) on(kind, showProgress);
  on("picture", showPicture);
  on("done", () => over(id, "done"));
  on("failed", (data) => over(id, "failed", data.error));
  on("interrupted", () => over(id, "interrupted"));
  source.onerror = () => {
    if (source !== stream || source.readyState !== EventSource.CLOSED) return;
    close();
    timer = setTimeout(() => current === id && open(id), 1500);
  };
}

document.addEventListener("visibilitychange", () => { if (current) open(current); });

function over(id, state, error) {
  asked++;
  close();
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
    // On a narrow page the settings may stand between the button and the picture.
    if (innerWidth <= 860) setTimeout(() => card.scrollIntoView({ block: "nearest", behavior: "smooth" }), 300);
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
  const kind = job.kind === "train" ? "train" : job.kind === "reproduce" ? "pnginfo" : job.request.start ? "img2img" : "txt2img";
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
