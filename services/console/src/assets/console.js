// Makes pages live, filters as one types, and knows a few keys. Without it everything works by links and forms.
"use strict";
(() => {
  const RETRY_MS = 15000;
  const TYPING_MS = 300;
  const AGO_MS = 30000;
  const MAX_SHOWN_NEW = 20;
  const main = document.getElementById("main");
  const state = document.querySelector("[data-live-state]");
  const said = document.querySelector("[data-said]");

  // --- Parts: exchanged whole, without taking away what somebody is doing with them.

  const selectorOf = (element) => {
    if (element.id) return "#" + CSS.escape(element.id);
    const attribute = ["href", "value", "name"].find((name) => element.getAttribute(name));
    if (!attribute) return null;
    return element.localName + "[" + attribute + "=\"" + CSS.escape(element.getAttribute(attribute)) + "\"]";
  };

  // What a row says, but for the time that passes by itself.
  const saysOf = (row) => [...row.cells].map((cell) => (cell.querySelector("[data-ago]") ? "" : cell.textContent)).join("|");

  const exchange = (id, content) => {
    const part = document.getElementById(id);
    if (!part) return;
    const focused = part.contains(document.activeElement) ? selectorOf(document.activeElement) : null;
    const checked = new Set([...part.querySelectorAll("input[name=account]:checked")].map((box) => box.value));
    const open = new Set([...part.querySelectorAll("details")].flatMap((d, index) => (d.open ? [index] : [])));
    const scrolled = [...part.querySelectorAll(".scroll")].map((box) => [box.scrollLeft, box.scrollTop]);
    const known = new Set([...part.querySelectorAll("tbody tr")].map(saysOf));
    part.replaceChildren(...content);
    for (const box of part.querySelectorAll("input[name=account]")) box.checked = checked.has(box.value);
    part.querySelectorAll("details").forEach((details, index) => { if (open.has(index)) details.open = true; });
    part.querySelectorAll(".scroll").forEach((box, index) => {
      if (scrolled[index]) [box.scrollLeft, box.scrollTop] = scrolled[index];
    });
    if (focused) part.querySelector(focused)?.focus({ preventScroll: true });
    chooseAll(part);
    // What is new catches the eye, unless everything is.
    const rows = [...part.querySelectorAll("tbody tr")].filter((row) => known.size && !known.has(saysOf(row)));
    if (rows.length <= MAX_SHOWN_NEW) for (const row of rows) row.classList.add("changed");
  };

  // The server's own fragment: what is data in it was escaped there.
  const fragment = (html) => {
    const template = document.createElement("template");
    template.innerHTML = html;
    return template.content.childNodes;
  };

  // --- Live

  let source = null;
  let retry = 0;
  let paused = false;

  const tell = (text) => { if (state) state.firstChild.textContent = text + " "; };

  const connect = () => {
    clearTimeout(retry);
    if (source) source.close();
    source = null;
    if (!main || !main.dataset.live || paused || document.hidden) return;
    const mine = new EventSource(main.dataset.live);
    source = mine;
    mine.addEventListener("part", (event) => {
      const part = JSON.parse(event.data);
      exchange(part.id, fragment(part.html));
    });
    mine.addEventListener("fresh", (event) => tell("Live. Last looked at " + event.data + "."));
    mine.addEventListener("trouble", (event) => tell("Not live: " + event.data));
    mine.addEventListener("said", (event) => { said.textContent = event.data; });
    mine.addEventListener("ended", () => location.reload());
    mine.addEventListener("error", () => {
      tell("Not live: the connection is lost and tried again.");
      // The browser tries again by itself unless it was refused.
      if (mine.readyState !== EventSource.CLOSED) return;
      fetch(location.href, { redirect: "manual" }).then((answer) => {
        if (answer.type === "opaqueredirect") location.reload();
      }).catch(() => {});
      retry = setTimeout(connect, RETRY_MS);
    });
  };

  if (state && main.dataset.live) {
    const pause = document.createElement("button");
    pause.type = "button";
    pause.className = "link";
    pause.textContent = "Pause";
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.textContent = paused ? "Go on" : "Pause";
      if (paused) tell("Paused.");
      connect();
    });
    state.append(" ", pause);
    // A tab that nobody sees holds no stream; browsers allow few connections to one server.
    document.addEventListener("visibilitychange", connect);
    // Who leaves is told of nothing more: not even that the session ends, by signing out.
    const leave = () => { if (source) source.close(); };
    document.addEventListener("submit", (event) => { if (event.target.method !== "dialog") leave(); });
    addEventListener("pagehide", leave);
    addEventListener("pageshow", (event) => { if (event.persisted) connect(); });
    connect();
  }

  // --- How long ago, kept true between two parts

  const relative = (ms) => {
    const minutes = Math.floor(Math.abs(ms) / 60000);
    if (minutes === 0) return "just now";
    const span = minutes < 120 ? minutes + " min" : minutes < 2880 ? Math.floor(minutes / 60) + " h"
      : Math.floor(minutes / 1440) + " d";
    return ms >= 0 ? span + " ago" : "in " + span;
  };
  setInterval(() => {
    for (const ago of document.querySelectorAll("[data-ago]")) {
      const at = Date.parse(ago.closest("time")?.dateTime);
      if (at) ago.textContent = relative(Date.now() - at);
    }
  }, AGO_MS);

  // --- Filter as one types

  for (const form of document.querySelectorAll("form[data-filter]")) {
    let timer = 0;
    let asking = null;
    const ask = async () => {
      if (asking) asking.abort();
      asking = new AbortController();
      const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value !== ""));
      const address = form.getAttribute("action") + (query.size ? "?" + query : "");
      try {
        const answer = await fetch(address, { signal: asking.signal });
        if (answer.redirected) return location.assign(address);
        // A filter that cannot be, as one types it, changes nothing; sent as a form it gets its answer.
        if (!answer.ok) return;
        const page = new DOMParser().parseFromString(await answer.text(), "text/html");
        const part = page.getElementById(form.dataset.filter);
        if (!part) return;
        exchange(part.id, part.childNodes);
        history.replaceState(null, "", address);
        main.dataset.live = page.getElementById("main").dataset.live;
        said.textContent = part.querySelector(".found, .nothing")?.textContent ?? "";
        connect();
      } catch (problem) {
        if (problem.name !== "AbortError") form.submit();
      }
    };
    form.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(ask, TYPING_MS);
    });
  }

  // --- Choosing all of a page

  const chooseAll = (part) => {
    const head = part.querySelector("thead th.choose");
    if (!head) return;
    const all = document.createElement("input");
    all.type = "checkbox";
    all.setAttribute("aria-label", "Choose all on this page");
    const boxes = () => [...part.querySelectorAll("tbody input[name=account]")];
    const show = () => {
      const chosen = boxes().filter((box) => box.checked).length;
      all.checked = chosen > 0 && chosen === boxes().length;
      all.indeterminate = chosen > 0 && !all.checked;
    };
    all.addEventListener("change", () => { for (const box of boxes()) box.checked = all.checked; });
    part.onchange = (event) => { if (event.target !== all) show(); };
    head.append(all);
    show();
  };
  for (const part of document.querySelectorAll("[data-part]")) chooseAll(part);

  // --- Keys

  const help = document.getElementById("help");
  const toggle = document.querySelector("[data-shortcuts]");
  const button = document.querySelector("[data-help]");
  let afterG = 0;
  const areOn = () => { try { return localStorage.getItem("shortcuts") !== "off"; } catch { return true; } };
  if (help && toggle && button) {
    button.hidden = false;
    button.addEventListener("click", () => help.showModal());
    toggle.checked = areOn();
    toggle.addEventListener("change", () => {
      try { localStorage.setItem("shortcuts", toggle.checked ? "on" : "off"); } catch { /* Not kept, then. */ }
    });
    document.addEventListener("keydown", (event) => {
      const isTyping = event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select, dialog");
      if (isTyping || event.ctrlKey || event.altKey || event.metaKey || !areOn()) return;
      const isAfterG = Date.now() - afterG < 1500;
      afterG = 0;
      if (isAfterG) {
        const link = document.querySelector("[data-go=\"" + CSS.escape(event.key) + "\"]");
        if (link) link.click();
      } else if (event.key === "g") {
        afterG = Date.now();
      } else if (event.key === "?") {
        help.showModal();
      } else if (event.key === "/") {
        const first = document.querySelector("[data-first]");
        if (first) { event.preventDefault(); first.focus(); first.select(); }
      }
    });
  }
})();
