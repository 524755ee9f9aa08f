// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// The list of extensions and their changes; everything passes through /api/v1/extensions, texts are never HTML.
const root = element.querySelector(".ext");
const part = (name) => root.querySelector(name);
const form = part(".ext-form");
let shown = { extensions: [], trash: [], why_not: "", folder: "" };
let dialog = null;
let health = new Map();

const api = async (path, method = "GET", body = undefined, type = "application/json") => {
  const answer = await fetch(`api/v1/extensions${path}`, {
    method, body, headers: { Accept: "application/json", ...(body === undefined ? {} : { "Content-Type": type }) },
  });
  const told = answer.status === 204 ? {} : await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(told.error || `The server answered ${answer.status}.`);
  return told;
};
const post = (path, body = {}) => api(path, "POST", JSON.stringify(body));
const named = (name) => `/${encodeURIComponent(name)}`;

function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null));
  return node;
}
const button = (words, action, act, kind = "ext-plain") => {
  const node = make("button", { type: "button", className: kind, "data-action": action }, words);
  node.addEventListener("click", () => work(node, act));
  return node;
};
const size = (bytes) => (bytes < 1024 ? `${bytes} B` : bytes < 1024 ** 2 ? `${(bytes / 1024).toFixed(1)} kB` : `${(bytes / 1024 ** 2).toFixed(1)} MB`);
const say = (place, text) => { const node = part(place); node.textContent = text; node.hidden = !text; };

// One thing at a time: the button that was pressed waits, and what went wrong is said.
async function work(node, act) {
  if (node.disabled) return;
  node.disabled = true;
  node.setAttribute("aria-busy", "true");
  say(".ext-error", "");
  say(".ext-said", "");
  try {
    await act();
  } catch (error) {
    const place = dialog?.querySelector(".ext-dialog-error");
    if (place) { place.textContent = error.message; place.hidden = false; } else say(".ext-error", error.message);
  } finally {
    node.disabled = false;
    node.removeAttribute("aria-busy");
  }
}
const change = (act, words) => async () => {
  await act();
  await refresh();
  say(".ext-said", words);
};

async function refresh() {
  const [listed, told] = await Promise.all([api(""), api("/health")]);
  shown = listed;
  health = new Map(told.extensions.map((one) => [one.name, one]));
  const off = Boolean(shown.why_not);
  say(".ext-why", shown.why_not);
  part(".ext-install").hidden = off;
  const waiting = shown.extensions.filter((one) => one.state.includes("next start")).map((one) => one.name);
  say(".ext-pending", waiting.length ? `Changes take effect when the program is started again (Ctrl+C in its window, then as before): ${waiting.join(", ")}.` : "");
  if (shown.safe_mode) say(".ext-pending", "Safe mode (--no-extensions): none of these is running.");
  part(".ext-list").replaceChildren(...(shown.extensions.length ? shown.extensions.map((one) => card(one, off)) : [empty(off)]));
  drawTrash(off);
}

function empty(off) {
  const words = off ? "There are no extensions here." : "There are no extensions yet. Write the address of a Git repository above, or choose a zip.";
  return make("div", { className: "ext-empty" }, make("p", {}, words),
    make("p", { className: "muted" }, "Folders that you put into ", make("code", {}, shown.folder), " are found at the next start, too; its README.md tells how to write one."));
}

function card(one, off) {
  const facts = [one.version, one.authors.join(", "), one.licence].filter(Boolean).join(" · ");
  const node = make("article", { className: "ext-card", "data-name": one.name, "data-state": one.state },
    make("div", { className: "ext-title" }, make("h3", {}, one.name), make("span", { className: "ext-state" }, one.state)),
    facts ? make("p", { className: "ext-facts" }, facts) : null,
    one.description ? make("p", {}, one.description) : null,
    make("p", { className: "ext-source muted" }, one.source + (one.changed_by_hand ? ", changed by hand since" : "")),
    one.tree_hash ? make("p", { className: "ext-hash muted", title: one.tree_hash }, `tree ${one.tree_hash.slice(0, 12)}`) : null,
    one.permissions.length ? make("p", { className: "ext-permissions" }, `Says it will ${one.permissions.join(", ")}.`) : null,
    ...problems(one).map((problem) => make("p", { className: "ext-problem" }, problem)),
    hooks(health.get(one.name)));
  if (!off && one.source !== "not on the disk any more") node.append(make("div", { className: "ext-actions" }, ...actions(one)));
  return node;
}

// What is wrong with it as it lies on the disk, and what its hooks did since the start.
function problems(one) {
  const conduct = health.get(one.name);
  if (!conduct) return one.problems;
  const why = conduct.why && !conduct.problems.some((problem) => problem.sentence === conduct.why) ? [conduct.why] : [];
  return [...new Set([...one.problems, ...conduct.problems.map((problem) => problem.sentence), ...why])];
}

// The time of each of its hooks since the start, the longest first.
function hooks(conduct) {
  const rows = ["server", "worker"].flatMap((where) => Object.entries(conduct?.hooks[where] || {})
    .map(([hook, time]) => ({ hook, where, ...time }))).sort((one, other) => other.total_s - one.total_s);
  if (!rows.length) return null;
  const calls = rows.reduce((sum, row) => sum + row.calls, 0);
  const spent = rows.reduce((sum, row) => sum + row.total_s, 0);
  const row = (name, ...cells) => make("tr", {}, ...cells.map((cell) => make(name, {}, String(cell))));
  return make("details", { className: "ext-hooks" },
    make("summary", {}, `${calls} ${calls === 1 ? "call" : "calls"} of its hooks, ${milliseconds(spent)}`),
    make("table", {}, row("th", "Hook", "Process", "Calls", "Time", "Longest"),
      ...rows.map((one) => row("td", one.hook, one.where, one.calls, milliseconds(one.total_s), milliseconds(one.longest_s)))));
}
const milliseconds = (seconds) => (seconds < 1 ? `${(seconds * 1000).toFixed(1)} ms` : `${seconds.toFixed(1)} s`);

function actions(one) {
  const place = named(one.name);
  const found = [one.enabled
    ? button("Disable", "disable", change(() => post(`${place}/disable`), `${one.name} is disabled.`))
    : button("Enable", "enable", change(() => post(`${place}/enable`), `${one.name} is enabled.`))];
  if (one.updatable) found.push(button("Look for an update", "update", async () => preview(await post(`${place}/plans`))));
  if (one.removable) found.push(zipButton("Update from a zip", one.name));
  if (one.previous !== null) {
    const words = one.previous ? `Back to ${one.previous}` : "Back to the version before";
    found.push(button(words, "rollback", change(() => post(`${place}/rollback`), `${one.name} is back at the version before.`)));
  }
  if (one.removable) found.push(button("Uninstall", "uninstall", change(() => api(place, "DELETE"), `${one.name} is in the trash.`)));
  return found;
}

function drawTrash(off) {
  const place = part(".ext-trash");
  place.hidden = !shown.trash.length;
  place.replaceChildren(make("h2", {}, "Trash"), ...shown.trash.map((one) => make("div", { className: "ext-thrown", "data-name": one.name },
    make("span", {}, make("strong", {}, one.name), ` ${one.version}`),
    make("span", { className: "muted" }, one.since ? new Date(one.since).toLocaleString() : ""),
    off ? null : button("Restore", "restore", change(() => post(`/trash/${encodeURIComponent(one.id)}/restore`), `${one.name} is back.`)))));
  if (off) return;
  const gone = button("Empty the trash", "empty", change(() => api("/trash/all", "DELETE"), "The trash is empty."));
  place.append(make("div", { className: "ext-actions" }, gone));
}

// --- what would be installed ---
function preview(plan) {
  const difference = plan.difference;
  const manifest = plan.manifest;
  const title = difference ? `Update ${plan.name}` : `Install ${plan.name} ${plan.version}`.trim();
  const confirm = button(difference ? "Update" : "Install", "confirm", async () => {
    await post(`/plans/${plan.id}/confirm`, { tree_hash: plan.tree_hash });
    plan.confirmed = true;
    dialog.close();
    form.reset();
    await refresh();
    say(".ext-said", `${plan.name} ${plan.version} is ${difference ? "updated" : "installed"}; it starts when the program is started again.`);
  }, "ext-primary");
  const cancel = make("button", { type: "button", className: "ext-plain", "data-action": "cancel" }, "Cancel");
  cancel.addEventListener("click", () => dialog.close());
  dialog = make("dialog", { className: "ext-dialog", "aria-label": title, id: "extensions_preview" },
    make("h2", {}, title),
    manifest.description ? make("p", {}, manifest.description) : null,
    facts([
      ["From", plan.from],
      ["Version", difference ? `${difference.from_version || "none"} → ${plan.version || "none"}` : plan.version || "not said"],
      difference && difference.from_commit && plan.commit ? ["Commit", `${difference.from_commit.slice(0, 12)} → ${plan.commit.slice(0, 12)}`] : null,
      ["By", manifest.authors.join(", ") || "not said"],
      ["Licence", manifest.licence || "not said"],
      ["Tree", plan.tree_hash],
    ]),
    list("It says that it will", plan.permissions, "ask for nothing in particular"),
    list("New since the version here: it says that it will", difference?.permissions_added, ""),
    list("No longer: that it will", difference?.permissions_removed, ""),
    list("Packages that are installed for it alone", plan.packages.map((one) => `${one.name} ${one.version}`), "none"),
    ...plan.notes.map((note) => make("p", { className: "strip warn" }, note)),
    ...(difference ? differing(difference) : [files(plan)]),
    make("p", { className: "ext-dialog-error strip warn", role: "alert", hidden: true }),
    make("p", { className: "muted" }, "What it says of itself is not enforced. It runs from the next start on, with all rights of this program."),
    make("div", { className: "ext-actions" }, confirm, cancel));
  const mine = dialog;
  dialog.addEventListener("close", () => {
    if (!plan.confirmed) api(`/plans/${plan.id}`, "DELETE").catch(() => {});
    mine.remove();
    dialog = null;
  });
  root.append(dialog);
  dialog.showModal();
}

const facts = (rows) => make("dl", { className: "ext-facts-list" }, ...rows.filter(Boolean).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));

function list(words, entries, none) {
  if (!entries?.length && !none) return null;
  return make("div", { className: "ext-said-list" }, make("h3", {}, words), entries?.length
    ? make("ul", {}, ...entries.map((entry) => make("li", {}, entry)))
    : make("p", { className: "muted" }, none));
}

function files(plan) {
  const rows = plan.files.map((file) => make("tr", {}, make("td", {}, file.name), make("td", {}, size(file.size))));
  return make("details", { open: plan.files.length <= 30 }, make("summary", {}, `${plan.files.length} files, ${size(plan.bytes)}`), make("table", { className: "ext-files" }, make("tbody", {}, ...rows)));
}

function differing(difference) {
  const names = (words, entries) => entries.map((entry) => make("li", {}, make("span", { className: "muted" }, `${words} `), entry));
  const lines = make("pre", { className: "ext-diff" }, ...difference.lines.split("\n").map((line) => make("span", {
    className: /^(\+\+\+|---) /.test(line) ? "file" : line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "",
  }, `${line}\n`)));
  const changes = [...names("new", difference.added), ...names("gone", difference.removed), ...names("changed", difference.changed)];
  return [make("div", { className: "ext-said-list" }, make("h3", {}, "Files"), make("ul", {}, ...changes)),
    make("details", { open: difference.lines.length < 4000 }, make("summary", {}, "Lines that change"), lines)];
}

// --- the form ---
const look = part("#extensions_look");
form.addEventListener("submit", (event) => {
  event.preventDefault();
  work(look, async () => preview(await post("/plans", { source: form.source.value, ref: form.ref.value.trim() })));
});

async function lookInto(file, update = "") {
  const query = new URLSearchParams({ filename: file.name, ...(update ? { update } : {}) });
  preview(await api(`/plans/zip?${query}`, "POST", file, "application/zip"));
}
part("#extensions_zip").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) work(look, () => lookInto(file).finally(() => { event.target.value = ""; }));
});

function zipButton(words, name) {
  const choose = make("input", { type: "file", accept: ".zip,application/zip", hidden: true });
  const node = button(words, "update-zip", async () => choose.click());
  choose.addEventListener("change", () => {
    const [file] = choose.files;
    choose.value = "";
    if (file) work(node, () => lookInto(file, name));
  });
  return make("span", {}, node, choose);
}

part("#extensions_refresh").addEventListener("click", (event) => work(event.currentTarget, refresh));
work(part("#extensions_refresh"), refresh);
