// What the page does in the browser beyond Gradio: keys, drops, theme, titles.  Loaded in <head>, before Gradio starts.
// Gradio builds tabs when they are first opened, so every listener here is delegated from the document.
(() => {
  const HINTS = %hints%;  // the end of an element id -> what its field is for
  const HISTORY = "webui.prompts";
  const KEPT_PROMPTS = 60;
  const titles = {};
  const THEME = "webui.theme";

  const webui = (window.webui = {
    live: {},      // tab -> {running, interrupt, skip}, filled by live.js and training_live.js
    canvases: {},  // element id -> async () => value, filled by canvas.js and paint.js
    modules: {},   // tab -> async () => value, filled by modules.js

    /** The value of a picture canvas with its mask stored; `value` when the canvas was never on the screen. */
    async canvas(id, value) {
      return webui.canvases[id] ? webui.canvases[id]() : value;
    },

    /** The uses of modules as they are on the screen; `value` when their panels were never on it. */
    async modulesOf(tab, value) {
      return webui.modules[tab] ? webui.modules[tab]() : value;
    },

    /** Keep a picture file among the inputs; its id there.  Raises an Error in one sentence. */
    async store(blob) {
      const answer = await fetch("api/v1/inputs", { method: "POST", body: blob, headers: { "Content-Type": blob.type || "application/octet-stream" } });
      const data = await answer.json().catch(() => ({}));
      if (answer.ok && data.id) return data.id;
      const reason = data.error || data.detail || data.message;
      throw new Error(typeof reason === "string" ? reason : reason?.message || `The picture was refused (HTTP ${answer.status}).`);
    },

    /** Progress in the window's title, one text a tab. */
    title(tab, text) {
      titles[tab] = text;
      const running = Object.values(titles).find(Boolean);
      webui.plainTitle ??= document.title;
      document.title = running ? `${running} ${webui.plainTitle}` : webui.plainTitle;
    },

    /** The file of a drop: from the disk, or a picture of this page, fetched so that its bytes stay as they are. */
    async droppedFile(event) {
      const [file] = event.dataTransfer.files;
      const url = event.dataTransfer.getData("text/uri-list").split("\n")[0];
      if (url.startsWith(`${location.origin}/`)) {
        const answer = await fetch(url);
        if (answer.ok) {
          const blob = await answer.blob();
          return new File([blob], decodeURIComponent(new URL(answer.url).pathname.split("/").pop()), { type: blob.type });
        }
      }
      return file || null;
    },
  });

  // --- theme: the system's, unless the person chose the other one ---
  const system = () => (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  const chosen = (() => { try { return localStorage.getItem(THEME); } catch { return null; } })();
  const address = new URL(location.href);
  if (chosen && address.searchParams.get("__theme") !== chosen) {
    address.searchParams.set("__theme", chosen);
    history.replaceState(history.state, "", address);
  }
  function toggleTheme() {
    const wanted = document.body.classList.contains("dark") ? "light" : "dark";
    document.body.classList.toggle("dark", wanted === "dark");
    document.documentElement.classList.toggle("dark", wanted === "dark");
    const url = new URL(location.href);
    try {
      if (wanted === system()) { localStorage.removeItem(THEME); url.searchParams.delete("__theme"); }
      else { localStorage.setItem(THEME, wanted); url.searchParams.set("__theme", wanted); }
    } catch { /* storage is switched off: the choice lasts until the page is closed */ }
    history.replaceState(history.state, "", url);
  }

  // --- which tab is on the screen ---
  const shown = (node) => Boolean(node && node.offsetParent !== null);
  const tab = () => ["txt2img", "img2img", "extras", "pnginfo", "train"].find((name) => shown(document.getElementById(`tab_${name}`)));
  const press = (id) => {
    const node = document.getElementById(id);
    if (shown(node)) node.click();
    return shown(node);
  };

  function setText(area, text, start, end) {
    area.value = text;
    if (start !== undefined) area.setSelectionRange(start, end);
    area.dispatchEvent(new Event("input", { bubbles: true }));
  }

  // --- attention of the selected words: (words:1.1), by 0.1 ---
  function changeAttention(area, step) {
    const text = area.value;
    let { selectionStart: start, selectionEnd: end } = area;
    const around = [...text.matchAll(/\(([^()]*?):(-?\d+(?:\.\d+)?)\)/g)].find((one) => one.index <= start && end <= one.index + one[0].length);
    if (around) {
      const weight = Math.max(0, Math.round((Number(around[2]) + step) * 100) / 100);
      const plain = weight === 1;
      const replacement = plain ? around[1] : `(${around[1]}:${weight})`;
      const from = around.index + (plain ? 0 : 1);
      setText(area, text.slice(0, around.index) + replacement + text.slice(around.index + around[0].length), from, from + around[1].length);
      return;
    }
    if (start === end) {
      const edge = /[\s,.()[\]<>:|]/;
      while (start > 0 && !edge.test(text[start - 1])) start--;
      while (end < text.length && !edge.test(text[end])) end++;
    }
    while (start < end && text[start] === " ") start++;
    while (end > start && text[end - 1] === " ") end--;
    if (start === end) return;
    const words = text.slice(start, end);
    setText(area, `${text.slice(0, start)}(${words}:${Math.round((1 + step) * 100) / 100})${text.slice(end)}`, start + 1, start + 1 + words.length);
  }

  /** Whether Escape is for what is open: a list of choices, a picture over the whole page, a gallery's preview, a stroke. */
  const closesSomething = (target) =>
    Boolean(document.fullscreenElement || target.hasAttribute?.("data-down") || target.closest?.(".gallery-container .preview")) ||
    [...document.querySelectorAll(".options, .block.fullscreen, dialog[open]")].some((node) => node.checkVisibility());

  // Before Gradio hears of the click: the prompts as they are, to be found among the earlier ones.
  document.addEventListener("click", (event) => {
    const [, where] = event.target.closest?.("button")?.id.match(/^(txt2img|img2img)_clear_prompt$/) || [];
    if (where) remember(where);
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.querySelector(".page-menu")) {
      event.preventDefault();
      closeMenu();
      return;
    }
    const control = event.ctrlKey || event.metaKey;
    const where = tab();
    const prompt = event.target.closest?.("[id$='_prompt'] textarea");
    if (control && event.key === "Enter" && (press(`${where}_generate`) || press(`${where}_start`))) {
      event.preventDefault();
      event.stopPropagation();
    } else if (event.altKey && event.key === "Enter" && webui.live[where]?.running()) {
      event.preventDefault();
      webui.live[where].skip();
    } else if (event.key === "Escape" && webui.live[where]?.running() && !closesSomething(event.target)) {
      stopForever(where);
      webui.live[where].interrupt();
    } else if (control && prompt && (event.key === "ArrowUp" || event.key === "ArrowDown")) {
      event.preventDefault();
      changeAttention(prompt, event.key === "ArrowUp" ? 0.1 : -0.1);
    }
  }, true);

  document.addEventListener("click", (event) => {
    const node = event.target.closest?.("button, [data-prompt]");
    if (!node) return;
    const [, tabName, order] = node.id.match(/^(txt2img|img2img)_(generate|prompt_history|interrupt)$/) || [];
    if (order === "generate") remember(tabName);
    else if (order === "prompt_history") openHistory(tabName, node);
    else if (order === "interrupt") stopForever(tabName);
    const [, where, action] = node.id.match(/^(\w+?)_(interrupt|skip|pause|go_on)$/) || [];
    if (action) webui.live[where]?.[action]();
    else if (node.dataset.training) webui.live.train?.[node.dataset.do](node.dataset.training);
    else if (node.id === "theme_toggle") toggleTheme();
    else if (node.dataset.close) node.closest(node.dataset.close)?.remove();
    else if (node.dataset.copy) navigator.clipboard?.writeText(node.dataset.copy).then(() => { node.textContent = "Copied"; });
    else if (node.dataset.prompt) {
      const target = shown(document.getElementById("img2img_prompt")) ? "img2img" : "txt2img";
      if (!shown(document.getElementById(`${target}_prompt`))) document.querySelector("#tabs button[role=tab]")?.click();
      setTimeout(() => {
        const area = document.querySelector(`#${target}_prompt textarea`);
        if (area) { setText(area, node.dataset.prompt); area.focus(); }
      }, 0);
    }
  });

  // Names of icon buttons, and what a field is for, as tooltips.
  document.addEventListener("pointerover", (event) => {
    const tool = event.target.closest?.("button.tool");
    if (tool && !tool.title) tool.title = tool.textContent.trim();
    const field = event.target.closest?.(".block[id], .header-switch");
    if (!field || field.dataset.hinted) return;
    field.dataset.hinted = "yes";
    const hint = HINTS[field.id] || HINTS[field.id.replace(/^(txt2img|img2img)_/, "")];
    if (hint) field.title = hint;
  });

  // --- earlier prompts: what was generated or cleared, the newest first, kept in this browser ---
  const earlier = () => { try { return JSON.parse(localStorage.getItem(HISTORY)) || []; } catch { return []; } };
  const area = (where, name) => document.querySelector(`#${where}_${name} textarea`);
  function remember(where) {
    const now = { prompt: area(where, "prompt")?.value || "", negative: area(where, "neg_prompt")?.value || "" };
    if (!now.prompt.trim() && !now.negative.trim()) return;
    const others = earlier().filter((one) => one.prompt !== now.prompt || one.negative !== now.negative);
    try { localStorage.setItem(HISTORY, JSON.stringify([now, ...others].slice(0, KEPT_PROMPTS))); } catch { /* storage is switched off or full */ }
  }
  const closeMenu = () => document.querySelector(".page-menu")?.remove();
  function openMenu(x, y, entries) {
    closeMenu();
    const menu = document.createElement("div");
    menu.className = "page-menu";
    menu.setAttribute("role", "menu");
    for (const { text, detail, run } of entries) {
      const item = document.createElement("button");
      item.type = "button";
      item.setAttribute("role", "menuitem");
      item.disabled = !run;
      item.textContent = text;
      if (detail) {
        const small = document.createElement("small");
        small.textContent = detail;
        item.append(small);
      }
      item.onclick = () => { closeMenu(); run(); };
      menu.append(item);
    }
    (document.querySelector(".gradio-container") || document.body).append(menu);
    menu.style.left = `${Math.max(8, Math.min(x, innerWidth - menu.offsetWidth - 8))}px`;
    menu.style.top = `${Math.max(8, Math.min(y, innerHeight - menu.offsetHeight - 8))}px`;
    menu.querySelector("button:not(:disabled)")?.focus();
  }
  function openHistory(where, button) {
    const box = button.getBoundingClientRect();
    const entries = earlier().map(({ prompt, negative }) => ({
      text: prompt || "(no prompt)",
      detail: negative,
      run() {
        remember(where);
        setText(area(where, "prompt"), prompt);
        setText(area(where, "neg_prompt"), negative);
      },
    }));
    openMenu(box.left, box.bottom + 4, entries.length ? entries : [{ text: "There is no earlier prompt yet." }]);
  }

  // --- Generate forever: pressed again whenever nothing runs ---
  const forever = {};
  function stopForever(where) {
    clearInterval(forever[where]);
    delete forever[where];
    document.getElementById(`${where}_generate`)?.classList.remove("forever");
  }
  function generateForever(where) {
    const again = () => { if (!webui.live[where]?.running()) document.getElementById(`${where}_generate`)?.click(); };
    stopForever(where);
    again();
    forever[where] = setInterval(again, 500);
    document.getElementById(`${where}_generate`).classList.add("forever");
  }
  document.addEventListener("contextmenu", (event) => {
    const [, where] = event.target.closest?.("button")?.id.match(/^(txt2img|img2img)_(?:generate|interrupt)$/) || [];
    if (!where) return;
    event.preventDefault();
    openMenu(event.clientX, event.clientY, [
      { text: "Generate forever", run: () => generateForever(where) },
      { text: "Cancel generate forever", run: forever[where] ? () => stopForever(where) : null },
    ]);
  });
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest?.(".page-menu")) closeMenu();
  }, true);

  // --- a picture dropped on the prompt restores its fields; one of this page dropped on a Gradio image box goes in ---
  const dropZone = (event) => event.target.closest?.(".prompt-box, .drop-image");
  document.addEventListener("dragover", (event) => {
    const zone = dropZone(event);
    const kinds = event.dataTransfer?.types || [];
    if (!zone || !(kinds.includes("Files") || kinds.includes("text/uri-list"))) return;
    event.preventDefault();
    zone.classList.add("dropping");
  }, true);
  document.addEventListener("dragleave", (event) => dropZone(event)?.classList.remove("dropping"), true);
  document.addEventListener("drop", async (event) => {
    const zone = dropZone(event);
    if (!zone) return;
    zone.classList.remove("dropping");
    const isPrompt = zone.classList.contains("prompt-box");
    const url = event.dataTransfer.getData("text/uri-list");
    if (isPrompt ? !(event.dataTransfer.files.length || url) : event.dataTransfer.files.length && !url) return;
    event.preventDefault();
    event.stopPropagation();
    const file = await webui.droppedFile(event);
    const owner = isPrompt ? document.getElementById(`${tab()}_prompt_image`) : zone;
    const input = owner?.querySelector("input[type=file]");
    if (!file || !input) return;
    const carrier = new DataTransfer();
    carrier.items.add(file);
    input.files = carrier.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
})();
