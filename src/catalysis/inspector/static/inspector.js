"use strict";
// Asks once a second whether the page would look different, and moves by keys.  All pages work without it.
(() => {
  const live = document.querySelector("[data-live]");
  const state = document.getElementById("state");
  const filter = document.getElementById("filter");
  const help = document.getElementById("help");
  const still = matchMedia("(prefers-reduced-motion: reduce)");

  // --- What changed ---

  const patchChildren = (old, fresh) => {
    const staying = new Set([...fresh.children].map((each) => each.id));
    for (const child of [...old.children]) if (!staying.has(child.id)) child.remove();
    let at = old.firstElementChild; // what stays is in order, so that hardly anything moves and loses the focus
    for (const child of [...fresh.children]) {
      let known = child.id ? document.getElementById(child.id) : null;
      if (known && known.parentNode !== old) known = null;
      if (!known) {
        old.insertBefore(child, at);
        if (child.tagName === "TR" && !still.matches)
          child.animate([{ backgroundColor: "rgb(13 122 128 / 22%)" }, { backgroundColor: "transparent" }], 1400);
        continue;
      }
      if (known === at) at = at.nextElementSibling;
      else old.insertBefore(known, at);
      if (known.isEqualNode(child)) continue;
      if ("patch" in known.dataset && "patch" in child.dataset) patchChildren(known, child);
      else known.replaceWith(child);
    }
  };

  const patch = (html) => {
    const focused = document.activeElement;
    const row = focused && focused.closest("tr[id]");
    const fresh = new DOMParser().parseFromString(`<div id="fragment">${html}</div>`, "text/html");
    patchChildren(live, fresh.getElementById("fragment"));
    if (row && document.activeElement !== focused) document.querySelector(`#${row.id} [data-row]`)?.focus();
  };

  let version = live?.dataset.version;
  let asked = 0;

  const ask = async (since) => {
    const number = ++asked;
    const url = new URL(live.dataset.live, location.href);
    url.searchParams.set("fragment", "1");
    if (filter?.value) url.searchParams.set("q", filter.value);
    if (since) url.searchParams.set("since", since);
    try {
      const answer = await fetch(url, { cache: "no-store" });
      if (number !== asked) return;
      if (answer.status === 200) {
        const html = await answer.text();
        if (number !== asked) return;
        version = answer.headers.get("x-version");
        patch(html);
      } else if (answer.status !== 204) throw new Error(answer.statusText);
      if (state.dataset.state === "lost") say("live", "Live");
    } catch {
      if (number === asked) say("lost", "No answer");
    }
  };

  const say = (kind, word) => {
    state.dataset.state = kind;
    state.querySelector(".word").textContent = word;
  };

  if (live) {
    setInterval(() => document.hidden || ask(version), 1000);
    document.addEventListener("visibilitychange", () => document.hidden || ask(version));
    let typing = 0;
    filter?.addEventListener("input", () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        const url = new URL(location.href);
        if (filter.value) url.searchParams.set("q", filter.value);
        else url.searchParams.delete("q");
        history.replaceState(null, "", url);
        ask(null);
      }, 150);
    });
  }

  // --- Keys ---

  const move = (by) => {
    const rows = [...document.querySelectorAll("[data-row]")];
    if (!rows.length) return false;
    const here = rows.indexOf(document.activeElement);
    const next = here < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, here + by));
    rows[next].focus();
    rows[next].scrollIntoView({ block: "nearest" });
    return true;
  };

  const back = () => {
    const up = document.body.dataset.back.trim();
    if (up) location.href = up;
  };

  const openHelp = () => help.open || help.showModal();
  document.getElementById("show-help").addEventListener("click", openHelp);

  const pages = [...document.querySelectorAll("header nav a")];
  const actions = {
    j: () => move(1),
    ArrowDown: () => move(1),
    k: () => move(-1),
    ArrowUp: () => move(-1),
    u: back,
    Escape: back,
    "/": () => filter?.focus(),
    "?": openHelp,
    1: () => pages[0].click(),
    2: () => pages[1].click(),
    3: () => pages[2].click(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.target === filter) {
      if (event.key === "ArrowDown" || (event.key === "Escape" && !filter.value)) {
        event.preventDefault();
        if (event.key === "Escape") filter.blur();
        else move(1);
      }
      return;
    }
    const action = Object.hasOwn(actions, event.key) ? actions[event.key] : null;
    if (action && action() !== false) event.preventDefault();
  });
})();
