// Body of a function (element, trigger, props, server, upload, watch), run once when the widget is on the page.
// Cards of model files: asked from /api/v1/cards a page at a time, drawn only where the person looks.
const root = element.querySelector(".cards");
const tab = root.dataset.tab;
const KINDS = {
  embedding: { page: "textual_inversion", word: "embedding" },
  hypernet: { page: "hypernetworks", word: "hypernetwork", tags: ["hypernet"], strength: "1" },
  checkpoint: { page: "checkpoints", word: "checkpoint" },
  lora: { page: "lora", word: "LoRA", tags: ["lora"], strength: "1" },
};
const MORE = JSON.parse(decodeURIComponent(root.dataset.more));  // kinds of extensions
for (const [kind, word, tags, strength] of MORE) KINDS[kind] = { page: `kind_${kind}`, word, tags, strength };
const PAGE = 120;          // cards asked for at a time
const GAP = 12;
const KEPT = "webui.cards";
const panes = {};
let current = "";          // the kind that is shown, "" for the workbench
let area = "prompt";       // the prompt that had the focus last
let dialog = null;

const api = async (path, options = {}) => {
  const answer = await fetch(`api/v1/cards${path}`, { headers: { Accept: "application/json" }, ...options });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `The server answered ${answer.status}.`);
  return body;
};
const put = (path, body) => api(path, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
const textarea = (name) => document.querySelector(`#${tab}_${name} textarea`);
const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
const kept = () => { try { return JSON.parse(localStorage.getItem(KEPT)) || {}; } catch { return {}; } };
const keep = (changes) => { try { localStorage.setItem(KEPT, JSON.stringify({ ...kept(), ...changes })); } catch { /* storage is switched off */ } };

function make(name, properties = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in node && key !== "list") node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children);
  return node;
}
const button = (words, properties, act) => {
  const node = make("button", { type: "button", ...properties }, words);
  node.addEventListener("click", act);
  return node;
};

// --- the inner tabs ---
for (const [kind, title] of MORE) {
  const words = title[0].toUpperCase() + title.slice(1);
  root.querySelector("[role=tablist]").append(make("button", { type: "button", role: "tab", id: `${tab}_kind_${kind}_tab`, "data-kind": kind, "aria-selected": false, tabIndex: -1 }, words));
}
const tabs = [...root.querySelectorAll("[role=tab]")];
function open(kind) {
  current = kind;
  for (const one of tabs) {
    const chosen = one.dataset.kind === kind;
    one.setAttribute("aria-selected", chosen);
    one.tabIndex = chosen ? 0 : -1;
    if (chosen) one.parentNode.scrollLeft = one.offsetLeft - one.parentNode.offsetLeft - 24;
  }
  document.body.classList.toggle(`cards-${tab}`, Boolean(kind));
  for (const [name, pane] of Object.entries(panes)) pane.node.hidden = name !== kind;
  if (kind) (panes[kind] ??= createPane(kind)).show();
}
tabs.forEach((one, place) => {
  one.addEventListener("click", () => open(one.dataset.kind));
  one.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const next = event.key === "Home" ? tabs[0] : event.key === "End" ? tabs.at(-1) : step && tabs[(place + step + tabs.length) % tabs.length];
    if (!next) return;
    event.preventDefault();
    open(next.dataset.kind);
    next.focus();
  });
});
// Whoever generates wants to see the picture.
document.addEventListener("click", (event) => {
  if (current && event.target.closest?.(`#${tab}_generate`)) open("");
}, true);
document.addEventListener("focusin", (event) => {
  if (event.target === textarea("prompt")) area = "prompt";
  else if (event.target === textarea("neg_prompt")) area = "neg_prompt";
});
document.addEventListener("input", (event) => {
  if (current && event.target.closest?.(`#${tab}_prompt, #${tab}_neg_prompt`)) panes[current].mark();
});

// --- what a click on a card does ---
function write(name, text) {
  const box = textarea(name);
  if (!box || box.value === text) return;
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}
const joined = (text, words) => (text && !/\s$/.test(text) ? `${text} ${words}` : text + words);
const without = (text, words) => (words ? text.replace(new RegExp(`\\s*${escaped(words)}`), "") : text);
const tagPattern = (card) => new RegExp(`\\s*<(?:${KINDS[card.kind].tags.join("|")}):${escaped(card.insert)}(?::[^<>]*)?>`, "g");
const wordPattern = (card) => new RegExp(`(^|[\\s,(\\[])${escaped(card.insert)}(?=$|[\\s,:)\\]])`);

function isUsed(card) {
  if (card.kind === "checkpoint") {
    const shown = document.querySelector("#setting_sd_model_checkpoint input")?.value || "";
    return shown.replace(/ \[[0-9a-f]+\]$/, "") === (card.folder ? `${card.folder}/` : "") + card.file;
  }
  const prompt = textarea("prompt")?.value || "";
  if (KINDS[card.kind].tags) return tagPattern(card).test(prompt);
  return wordPattern(card).test(prompt) || wordPattern(card).test(textarea("neg_prompt")?.value || "");
}

function use(card) {
  if (card.kind === "checkpoint") {
    trigger("chosen", { name: card.insert });
    setTimeout(() => panes.checkpoint?.mark(), 600);
  } else if (KINDS[card.kind].tags) useTag(card);
  else useWord(card);
  panes[card.kind].mark();
}

function useTag(card) {
  const prompt = textarea("prompt").value;
  const negative = textarea("neg_prompt").value;
  if (tagPattern(card).test(prompt)) {
    write("prompt", without(prompt.replace(tagPattern(card), ""), card.activation_text).trimStart());
    write("neg_prompt", without(negative, card.negative_text).trimStart());
    return;
  }
  const { tags, strength } = KINDS[card.kind];
  const tag = `<${[tags[0], card.insert, ...(strength ? [card.preferred_weight || strength] : [])].join(":")}>`;
  write("prompt", joined(prompt, card.activation_text ? `${tag} ${card.activation_text}` : tag));
  if (card.negative_text) write("neg_prompt", joined(negative, card.negative_text));
}

function useWord(card) {
  const words = [card.insert, card.activation_text].filter(Boolean).join(" ");
  const used = ["prompt", "neg_prompt"].find((name) => wordPattern(card).test(textarea(name).value));
  if (used) {
    const shorter = without(textarea(used).value, card.activation_text).replace(wordPattern(card), "");
    write(used, shorter.trimStart());
  } else write(area, joined(textarea(area).value, words));
}

// --- a pane: search, folders, order, and the cards of a kind ---
function createPane(kind) {
  const about = KINDS[kind];
  const id = (suffix) => `${tab}_${about.page}_${suffix}`;
  const remembered = kept()[kind] || {};
  const query = { search: "", folder: "", sort: remembered.sort || "path", descending: Boolean(remembered.descending) };
  let pages = new Map();   // number of a page -> its cards, null while they are asked for
  let nodes = new Map();   // place -> the element on the screen
  let total = null;
  let turn = 0;
  let layout = { columns: 1, width: 0, height: 0 };
  let again = null;
  let focused = null;      // the place whose card takes the focus when it is drawn

  const search = make("input", { type: "search", id: id("extra_search"), className: "cards-search", placeholder: "Search", "aria-label": `Search ${about.word} files`, autocomplete: "off", spellcheck: false });
  const sort = make("select", { id: id("extra_sort"), className: "cards-sort", "aria-label": "Order" },
    ...["path", "name", "created", "modified"].map((name) => make("option", { value: name }, { path: "Path", name: "Name", created: "Date created", modified: "Date modified" }[name])));
  sort.value = query.sort;
  const direction = button("", { id: id("extra_sort_dir"), className: "cards-tool cards-direction" }, () => reorder({ descending: !query.descending }));
  const treeToggle = button("", { id: id("extra_tree_view"), className: "cards-tool cards-tree-toggle", title: "Folders", "aria-label": "Folders" }, () => showTree(tree.hidden));
  const refresh = button("", { id: id("extra_refresh"), className: "cards-tool cards-refresh", title: "Look at the folder again", "aria-label": "Refresh" }, () => start({ refresh: true }));
  const status = make("span", { className: "cards-status", role: "status", "aria-live": "polite" });
  const tree = make("nav", { id: id("tree"), className: "cards-tree", "aria-label": "Folders", hidden: remembered.tree === undefined ? innerWidth <= 860 : !remembered.tree });
  const sheet = make("div", { id: id("cards"), className: "cards-sheet extra-network-cards", role: "list", "aria-label": `${about.word} files` });
  const empty = make("div", { className: "cards-empty", hidden: true });
  const scroll = make("div", { className: "cards-scroll", tabIndex: -1 }, sheet, empty);
  const node = make("div", { id: id("pane"), className: "cards-pane", role: "tabpanel", "aria-labelledby": `${tab}_${about.page}_tab` },
    make("div", { className: "cards-bar", id: id("controls") }, treeToggle, search, sort, direction, refresh, status),
    make("div", { className: "cards-body" }, tree, scroll));
  root.append(node);

  let typing = null;
  search.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(() => { query.search = search.value; start(); }, 120);
  });
  sort.addEventListener("change", () => reorder({ sort: sort.value }));
  scroll.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  new ResizeObserver(() => { if (node.offsetParent) { measure(); draw(); } }).observe(scroll);
  sheet.addEventListener("keydown", move);
  showDirection();

  function reorder(changes) {
    Object.assign(query, changes);
    keep({ [kind]: { ...kept()[kind], sort: query.sort, descending: query.descending } });
    showDirection();
    start();
  }
  function showDirection() {
    direction.title = query.descending ? "Descending" : "Ascending";
    direction.setAttribute("aria-label", direction.title);
    direction.classList.toggle("descending", query.descending);
  }
  function showTree(on) {
    tree.hidden = !on;
    treeToggle.setAttribute("aria-pressed", on);
    keep({ [kind]: { ...kept()[kind], tree: on } });
  }

  /** Ask anew; what is on the screen stays until the answer is there. */
  async function start({ refresh: look = false, stay = false } = {}) {
    const mine = ++turn;
    clearTimeout(again);
    if (!stay) scroll.scrollTop = 0;
    const number = stay ? Math.floor(firstPlace() / PAGE) : 0;
    try {
      const first = await ask(number, look);
      if (mine !== turn) return;
      pages = new Map([[number, first.cards]]);
      const held = document.activeElement?.closest(".card");  // a list that is read anew keeps the keyboard's place
      if (stay && held && sheet.contains(held)) focused ??= Number(held.dataset.place);
      nodes.forEach((one) => one.remove());
      nodes = new Map();
      told(first);
      if (!stay || look) drawTree();
    } catch (error) {
      if (mine === turn) status.textContent = String(error.message || error);
    }
  }
  const ask = (number, look = false) => api(`?${new URLSearchParams({ kind, ...query, offset: number * PAGE, limit: PAGE, ...(look ? { refresh: true } : {}) })}`);

  function told(answer) {
    total = answer.total;
    const count = `${total.toLocaleString()} ${total === 1 ? "file" : "files"}`;
    status.textContent = answer.unread ? `${count} · reading ${answer.unread.toLocaleString()}…` : count;
    if (answer.unread) again = setTimeout(() => current === kind && start({ stay: true }), 1500);
    showEmpty(answer.place);
    measure();
    draw();
  }

  function showEmpty(place) {
    empty.hidden = total > 0;
    sheet.hidden = total === 0;
    if (total > 0) return;
    const narrowed = query.search || query.folder;
    empty.replaceChildren(
      make("div", { className: "empty-art" }),
      narrowed ? make("p", {}, `No ${about.word} file matches.`) : make("p", {}, `There is no ${about.word} file yet.`),
      narrowed
        ? button("Show all", { className: "cards-plain" }, () => { query.search = search.value = ""; query.folder = ""; start(); })
        : make("p", { className: "muted" }, "Put files into ", make("code", {}, place), " and press Refresh."),
    );
  }

  function measure() {
    const width = sheet.clientWidth || scroll.clientWidth - 24;
    if (width <= 0) return;
    const least = innerWidth <= 860 ? 132 : 164;
    const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
    const each = (width - GAP * (columns - 1)) / columns;
    const height = Math.round(each * 1.42);
    if (columns !== layout.columns || each !== layout.width) nodes.forEach((one, place) => seat(one, place, { columns, width: each, height }));
    layout = { columns, width: each, height };
    sheet.style.height = `${Math.ceil((total || 0) / columns) * (height + GAP)}px`;
  }
  function seat(one, place, how = layout) {
    const row = Math.floor(place / how.columns);
    const column = place % how.columns;
    one.style.cssText = `width:${how.width}px;height:${how.height}px;transform:translate(${column * (how.width + GAP)}px,${row * (how.height + GAP)}px)`;
  }
  const firstPlace = () => Math.floor(scroll.scrollTop / (layout.height + GAP || 1)) * layout.columns;

  function draw() {
    if (!total || !layout.width || node.hidden) return;
    const rows = Math.ceil(scroll.clientHeight / (layout.height + GAP)) + 1;
    const first = Math.max(0, firstPlace() - layout.columns);
    const last = Math.min(total, firstPlace() + (rows + 1) * layout.columns);
    for (const [place, one] of nodes) {
      if (place < first || place >= last) { one.remove(); nodes.delete(place); }
    }
    for (let number = Math.floor(first / PAGE); number * PAGE < last; number++) if (!pages.has(number)) fill(number);
    for (let place = first; place < last; place++) {
      const card = pages.get(Math.floor(place / PAGE))?.[place % PAGE];
      if (nodes.has(place) || !card) continue;
      const one = cardNode(card, place);
      seat(one, place);
      const after = [...nodes.keys()].filter((other) => other > place);
      sheet.insertBefore(one, after.length ? nodes.get(Math.min(...after)) : null);
      nodes.set(place, one);
      if (place === focused) { one.querySelector(".card-main").focus({ preventScroll: true }); focused = null; }
    }
  }
  async function fill(number) {
    const mine = turn;
    pages.set(number, null);
    try {
      const answer = await ask(number);
      if (mine !== turn) return;
      pages.set(number, answer.cards);
    } catch (error) {
      if (mine === turn) { pages.delete(number); status.textContent = String(error.message || error); }
      return;
    }
    draw();
  }

  function cardNode(card, place) {
    const art = card.thumbnail
      ? make("img", { src: `api/v1/cards/${card.id}/thumbnail?v=${card.thumbnail}`, alt: "", draggable: false, decoding: "async" })
      : make("span", { className: "card-letters" }, card.name.replace(/[^\p{L}\p{N}]/gu, "").slice(0, 2) || "?");
    if (card.thumbnail) art.onerror = () => art.replaceWith(make("span", { className: "card-letters" }, "?"));
    const main = button(art, { className: "card-main", title: [card.folder ? `${card.folder}/${card.file}` : card.file, card.problem || card.description].filter(Boolean).join("\n") }, () => use(card));
    main.append(make("span", { className: "card-words" },
      make("span", { className: "name" }, card.name),
      ...(card.description || card.activation_text ? [make("span", { className: "description" }, card.description || card.activation_text)] : [])));
    if (card.problem) main.append(make("span", { className: "card-badge card-problem" }, "damaged"));
    else if (card.base) main.append(make("span", { className: "card-badge" }, card.base));
    main.setAttribute("aria-pressed", isUsed(card));
    const tools = make("span", { className: "button-row" },
      button("", { className: "card-button copy-path-button", title: "Copy path", "aria-label": `Copy the path of ${card.name}` }, (event) => copyPath(card, event.currentTarget)),
      button("", { className: "card-button metadata-button", title: "Metadata", "aria-label": `Metadata of ${card.name}` }, () => showMetadata(card)),
      button("", { className: "card-button edit-button", title: "Edit notes", "aria-label": `Edit notes on ${card.name}` }, () => edit(card)));
    return make("div", { className: `card${card.problem ? " has-problem" : ""}`, role: "listitem", "data-name": card.name, "data-place": place }, main, tools);
  }

  function move(event) {
    const here = event.target.closest(".card");
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: layout.columns, ArrowUp: -layout.columns, PageDown: 4 * layout.columns, PageUp: -4 * layout.columns }[event.key];
    if (!here || !(step || event.key === "Home" || event.key === "End") || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const place = event.key === "Home" ? 0 : event.key === "End" ? total - 1 : Number(here.dataset.place) + step;
    if (place < 0 || place >= total) return;
    const top = Math.floor(place / layout.columns) * (layout.height + GAP);
    if (top < scroll.scrollTop) scroll.scrollTop = top;
    else if (top + layout.height > scroll.scrollTop + scroll.clientHeight) scroll.scrollTop = top + layout.height - scroll.clientHeight;
    focused = place;
    draw();
    const there = nodes.get(place);
    if (there) { there.querySelector(".card-main").focus({ preventScroll: true }); focused = null; }
  }

  async function drawTree() {
    const mine = turn;
    const found = await api(`/folders?${new URLSearchParams({ kind })}`).catch(() => []);
    if (mine !== turn) return;
    treeToggle.hidden = !found.length;
    node.classList.toggle("has-folders", found.length > 0);
    treeToggle.setAttribute("aria-pressed", !tree.hidden);
    const rows = [{ path: "", count: null, depth: 0, name: "All" },
      ...found.map(({ path, count }) => ({ path, count, depth: path.split("/").length, name: path.split("/").at(-1) }))];
    tree.replaceChildren(...rows.map(({ path, count, depth, name }) => {
      const row = button(name, { className: "cards-folder", title: path || "All folders", style: `--depth:${depth}`, "aria-current": path === query.folder }, () => {
        query.folder = path;
        tree.querySelectorAll("[aria-current]").forEach((one) => one.setAttribute("aria-current", one === row));
        start({ stay: false });
      });
      if (count !== null) row.append(make("small", {}, count.toLocaleString()));
      return row;
    }));
  }

  function mark() {
    for (const [place, one] of nodes) {
      const card = pages.get(Math.floor(place / PAGE))?.[place % PAGE];
      if (card) one.querySelector(".card-main").setAttribute("aria-pressed", isUsed(card));
    }
  }

  /** Take up what became of a card. */
  function changed(card) {
    for (const [number, cards] of pages) {
      const within = cards?.findIndex((one) => one.id === card.id) ?? -1;
      if (within < 0) continue;
      cards[within] = card;
      const place = number * PAGE + within;
      nodes.get(place)?.remove();
      nodes.delete(place);
    }
    draw();
  }

  return {
    node,
    mark,
    changed,
    show() {
      if (total === null) start();
      else { measure(); draw(); mark(); }
    },
    say(text) { status.textContent = text; },
  };
}

// --- path, metadata, notes ---
async function copyPath(card, place) {
  try {
    const { path } = await api(`/${card.id}`);
    if (!navigator.clipboard) return showMetadata(card);  // not over plain http from another machine: to be copied by hand
    await navigator.clipboard.writeText(path);
    place.classList.add("done");
    setTimeout(() => place.classList.remove("done"), 1200);
  } catch (error) { panes[card.kind].say(String(error.message || error)); }
}

function openDialog(title, ...content) {
  dialog?.remove();
  const shut = button("×", { className: "cards-close", "aria-label": "Close" }, () => dialog.close());
  dialog = make("dialog", { className: "cards-dialog", "aria-label": title }, make("div", { className: "cards-dialog-head" }, make("h2", {}, title), shut), ...content);
  dialog.addEventListener("close", () => { dialog?.remove(); dialog = null; });
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  root.append(dialog);
  dialog.showModal();
  return dialog;
}

const megabytes = (bytes) => (bytes < 1e6 ? `${Math.ceil(bytes / 1e3).toLocaleString()} kB` : `${(bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0)} MB`);

async function detailed(card) {
  try { return await api(`/${card.id}`); } catch (error) { panes[card.kind].say(String(error.message || error)); return null; }
}

async function showMetadata(card) {
  const about = await detailed(card);
  if (!about) return;
  const { facts } = about;
  const rows = [["Title", facts.title], ["Made for", about.base], ["Name given in training", facts.alias], ["Author", facts.author],
    ["Trigger phrase", facts.trigger], ["Description", facts.description], ...Object.entries(facts.details), ["Size", megabytes(about.size)],
    ["Modified", new Date(about.modified * 1000).toLocaleString()], ["SHA-256", about.sha256 || "not computed yet"], ["Hash of its tensors", facts.network_hash], ["Path", about.path]];
  openDialog(card.name,
    ...(facts.problem ? [make("p", { className: "cards-error" }, facts.problem)] : []),
    make("dl", { className: "cards-facts" }, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    ...(facts.tags.length ? [make("h3", {}, "Most frequent words of its captions"), make("p", { className: "cards-tags" }, ...facts.tags.map(([tag, count]) => make("span", { className: "cards-tag" }, tag, make("small", {}, ` ${count}`))))] : []),
    ...(Object.keys(about.metadata).length ? [make("details", {}, make("summary", {}, "All metadata"), make("pre", {}, JSON.stringify(about.metadata, null, 2)))] : [make("p", { className: "muted" }, "The file carries no metadata.")]));
}

async function edit(card) {
  const about = await detailed(card);
  if (!about) return;
  const { notes, facts } = about;
  const fields = {};
  const labelled = (name, words, control) => { fields[name] = control; return make("label", { className: "cards-field" }, make("span", {}, words), control); };
  const long = (name, words, rows) => labelled(name, words, make("textarea", { rows, value: notes[name], name }));
  const controls = [long("description", "Description", 3)];
  const chips = make("p", { className: "cards-tags" });
  if (card.kind === "lora") {
    const versions = ["", "SD1", "SD2", "SDXL", "SD3", "Flux", "Unknown"];
    if (!versions.includes(notes.sd_version)) versions.push(notes.sd_version);
    controls.push(labelled("sd_version", "Made for", make("select", { name: "sd_version" }, ...versions.map((one) => make("option", { value: one, selected: one === notes.sd_version }, one || `as the file says${facts.base ? ` (${facts.base})` : ""}`)))));
  }
  if (KINDS[card.kind].tags || card.kind === "embedding") {
    controls.push(long("activation_text", "Activation text: written into the prompt with it", 2));
    const words = [...new Set([facts.trigger, ...facts.tags.map(([tag]) => tag)].filter(Boolean))].slice(0, 24);
    if (words.length) {
      chips.append(...words.map((word) => button(word, { className: "cards-tag" }, () => {
        const box = fields.activation_text;
        box.value = box.value ? `${box.value.replace(/[\s,]+$/, "")}, ${word}` : word;
      })));
      controls.push(make("div", { className: "cards-field" }, make("span", {}, "Words of its captions"), chips));
    }
  }
  const { tags, strength } = KINDS[card.kind];
  if (strength) {
    const number = make("input", { type: "number", min: -2, max: 2, step: 0.01, value: notes.preferred_weight, "aria-label": "Preferred weight as a number" });
    const slider = make("input", { type: "range", min: 0, max: 2, step: 0.01, value: notes.preferred_weight, name: "preferred_weight" });
    slider.addEventListener("input", () => { number.value = slider.value; });
    number.addEventListener("input", () => { slider.value = number.value; });
    fields.preferred_weight = number;
    controls.push(make("div", { className: "cards-field" }, make("span", {}, `Preferred weight, 0 for the usual ${strength}`), make("span", { className: "cards-weight" }, slider, number)));
  }
  if (tags) controls.push(long("negative_text", "Negative prompt: written there with it", 2));
  if (card.kind === "checkpoint") {
    const vaes = await api(`?${new URLSearchParams({ kind: "vae", limit: 500 })}`).catch(() => ({ cards: [] }));
    const list = make("datalist", { id: `${tab}_cards_vaes` }, ...["Automatic", "None", ...vaes.cards.map((one) => one.file)].map((name) => make("option", { value: name })));
    controls.push(labelled("vae", "Preferred VAE", make("input", { type: "text", name: "vae", value: notes.vae, placeholder: "Automatic", list: list.id })), list);
  }
  controls.push(long("notes", "Notes", 3));
  const error = make("p", { className: "cards-error", hidden: true, role: "alert" });
  const fail = (reason) => { error.textContent = String(reason.message || reason); error.hidden = false; };
  const save = button("Save", { className: "cards-save" }, async () => {
    const values = Object.fromEntries(Object.entries(fields).map(([name, control]) => [name, name === "preferred_weight" ? Number(control.value) || 0 : control.value]));
    const changes = Object.fromEntries(Object.entries(values).filter(([name, value]) => value !== notes[name]));
    try {
      if (Object.keys(changes).length) panes[card.kind].changed(await put(`/${card.id}/notes`, changes));
      dialog.close();
    } catch (reason) { fail(reason); }
  });
  openDialog(card.name, error, ...controls, await previews(card, fail),
    make("div", { className: "cards-buttons" }, button("Cancel", { className: "cards-plain" }, () => dialog.close()), save));
}

/** The pictures of this tab's last job, each to become the preview. */
async function previews(card, fail) {
  const strip = make("div", { className: "cards-previews" });
  const job = document.querySelector(`#${tab}_live .live-card`)?.dataset.shown;
  const answer = job ? await fetch(`api/v1/jobs/${encodeURIComponent(job)}`).catch(() => null) : null;
  const outputs = answer?.ok ? (await answer.json()).outputs.slice(-12) : [];
  if (!outputs.length) {
    strip.append(make("p", { className: "muted" }, "Generate a picture first; it can be made the preview here."));
  }
  for (const output of outputs) {
    const picture = make("img", { src: `api/v1/pictures/${output.id}`, alt: `Picture with the seed ${output.seed}`, loading: "lazy" });
    const choice = button(picture, { title: "Make this the preview", className: "cards-preview" }, async () => {
      try {
        panes[card.kind].changed(await put(`/${card.id}/preview`, { output: output.id }));
        strip.querySelectorAll(".chosen").forEach((one) => one.classList.remove("chosen"));
        choice.classList.add("chosen");
      } catch (reason) { fail(reason); }
    });
    strip.append(choice);
  }
  return make("div", { className: "cards-field" }, make("span", {}, "Preview: one of the last pictures"), strip);
}
