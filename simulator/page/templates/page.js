"use strict";
(() => {
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  document.body.append(tip);

  let shown = null;
  const show = (mark, x, y) => {
    shown = mark;
    tip.textContent = mark.dataset.tip;
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(x + 12, innerWidth - box.width - 8)) + "px";
    tip.style.top = (y + 16 + box.height > innerHeight ? y - box.height - 12 : y + 16) + "px";
  };
  const hide = () => { tip.hidden = true; };

  for (const mark of document.querySelectorAll(".mark")) {
    mark.querySelector("title").remove();
    mark.addEventListener("pointermove", (event) => show(mark, event.clientX, event.clientY));
    mark.addEventListener("pointerleave", () => { if (shown === mark) hide(); });
  }

  // A figure is one stop of the Tab key; the arrow keys walk over its marks.
  for (const figure of document.querySelectorAll("svg[role=img]")) {
    const marks = [...figure.querySelectorAll(".mark")];
    if (!marks.length) continue;
    let at = -1;
    const go = (to) => {
      marks[at]?.classList.remove("now");
      at = to;
      if (at < 0) return hide();
      marks[at].classList.add("now");
      const box = marks[at].getBoundingClientRect();
      show(marks[at], box.left + box.width / 2, box.top + box.height / 2);
    };
    figure.tabIndex = 0;
    figure.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") go(-1);
      if (!step) return;
      event.preventDefault();
      go((at + step + marks.length) % marks.length);
    });
    figure.addEventListener("blur", () => go(-1));
  }

  const value = (row, column) => {
    const cell = row.cells[column];
    const number = cell.dataset.value;
    return number === undefined ? cell.textContent.trim() : number === "" ? NaN : Number(number);
  };
  const compare = (a, b) => {
    if (typeof a === "string") return a.localeCompare(b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a - b;
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (head.hasAttribute("data-fixed")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [value(row, column), row]);
        rows.sort(([a], [b]) => (Number.isNaN(a) || Number.isNaN(b) ? compare(a, b) : down ? compare(b, a) : compare(a, b)));
        body.append(...rows.map(([, row]) => row));
      });
    });
  }

  // Any table as CSV: what is shown of it, numbers with all their digits, a second line of a cell as a column of its own.
  const said = (cell) => [...cell.childNodes].filter((n) => n.nodeType === 3 || n.nodeName === "CODE").map((n) => n.textContent).join("").trim();
  const number = (text) => text.replace(/\u2212/g, "-").replace(/\u00a0/g, " ");
  const field = (text) => {
    // A spreadsheet must not take a name for a formula.
    const safe = /^[=@\t\r]|^[+-](?![\d.])/.test(text) ? "'" + text : text;
    return /[",\n\r]/.test(safe) ? '"' + safe.replace(/"/g, '""') + '"' : safe;
  };
  const grid = (table) => {
    const columns = [...table.tHead.rows[0].cells];
    const open = columns.map(() => ({ left: 0, cell: null }));
    return [...table.tBodies[0].rows].map((row) => {
      const cells = [...row.cells];
      return columns.map((_, i) => {
        if (open[i].left) { open[i].left--; return open[i].cell; }
        const cell = cells.shift();
        open[i] = { left: (cell?.rowSpan ?? 1) - 1, cell };
        return cell;
      });
    });
  };
  const csv = (table) => {
    const heads = [...table.tHead.rows[0].cells];
    const rows = grid(table).filter((_, i) => !table.tBodies[0].rows[i].classList.contains("away"));
    const kept = heads.map((_, i) => i).filter((i) => !rows.some((row) => row[i]?.classList.contains("plot")));
    const under = new Set(kept.filter((i) => rows.some((row) => row[i]?.querySelector(".small"))));
    const line = (cell, i) => {
      const value = cell.dataset.value || number(said(cell));
      return under.has(i) ? [value, number(cell.querySelector(".small")?.textContent ?? "")] : [value];
    };
    const names = kept.flatMap((i) => (under.has(i) ? [said_head(heads[i]), said_head(heads[i]) + ", second line"] : [said_head(heads[i])]));
    const text = [names, ...rows.map((row) => kept.flatMap((i) => line(row[i], i)))];
    return text.map((cells) => cells.map(field).join(",")).join("\r\n") + "\r\n";
  };
  const said_head = (head) => (head.querySelector("button") ?? head).textContent.trim();
  const file = (text) => (text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "") || "table").slice(0, 60) + ".csv";
  for (const table of document.querySelectorAll("table")) {
    const name = table.getAttribute("aria-label");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "csv";
    button.textContent = "CSV";
    button.setAttribute("aria-label", "CSV of " + name);
    button.title = "Save this table as CSV";
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob(["\ufeff", csv(table)], { type: "text/csv" }));
      link.download = file(name);
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
    (table.closest(".scroll") ?? table).after(button);
  }

  // What the reader chooses holds in all tables that have such a column, and for what is about one value.
  const main = document.querySelector("main");
  const facets = new Map();
  const offer = (facet, value) => {
    if (!facets.has(facet)) facets.set(facet, new Set());
    facets.get(facet).add(value);
  };
  const tables = [...main.querySelectorAll("table")].filter((table) => table.querySelector("th[data-facet]")).map((table) => {
    const heads = [...table.tHead.rows[0].cells];
    const of = heads.map((head, i) => [head.dataset.facet, i]).filter(([facet]) => facet);
    const cells = grid(table);
    const joined = table.querySelector("[rowspan]");
    const rows = [...table.tBodies[0].rows].map((row, i) => {
      const about = {};
      // Rows that share a cell stay together.
      for (const [facet, column] of of) if (!joined || column === 0) about[facet] = said(cells[i][column]);
      for (const [facet, value] of Object.entries(about)) offer(facet, value);
      return { row, about, text: (joined ? said(cells[i][0]) : row.textContent).toLowerCase() };
    });
    const empty = document.createElement("p");
    empty.className = "none";
    empty.textContent = "No row of this table is chosen.";
    empty.hidden = true;
    (table.closest(".scroll") ?? table).before(empty);
    return { table, rows, empty };
  });
  const groups = [...main.querySelectorAll("[data-about]")].map((node) => ({ node, about: JSON.parse(node.dataset.about) }));
  for (const { about } of groups) for (const [facet, value] of Object.entries(about)) offer(facet, value);

  const chosen = {};
  let sought = "";
  const fits = (about) => Object.entries(about).every(([facet, value]) => !chosen[facet] || chosen[facet] === value);
  const choose = () => {
    let seen = 0, all = 0;
    for (const { node, about } of groups) node.classList.toggle("away", !fits(about));
    for (const { table, rows, empty } of tables) {
      let here = 0;
      for (const { row, about, text } of rows) {
        const stays = fits(about) && text.includes(sought);
        row.classList.toggle("away", !stays);
        here += stays;
      }
      const whole = table.closest(".group.away") === null;
      all += rows.length;
      seen += whole ? here : 0;
      empty.hidden = here > 0 || !whole;
      (table.closest(".scroll") ?? table).classList.toggle("away", !here);
      (table.closest(".scroll") ?? table).nextElementSibling.classList.toggle("away", !here);
    }
    const some = sought || Object.values(chosen).some(Boolean);
    told.textContent = some ? `${seen.toLocaleString("en")} of ${all.toLocaleString("en")}` : "";
    reset.hidden = !some;
    if (sought || chosen.Segment) for (const fold of main.querySelectorAll("details")) if (fold.querySelector("tbody tr:not(.away)")) fold.open = true;
  };
  const make = (tag, properties) => Object.assign(document.createElement(tag), properties);
  const bar = make("form", { className: "choose" });
  const told = make("output", {});
  const reset = make("button", { type: "button", textContent: "Show all", hidden: true });
  bar.setAttribute("aria-label", "Choose rows");
  bar.addEventListener("submit", (event) => event.preventDefault());
  for (const facet of JSON.parse(document.querySelector(".bar-top").dataset.facets)) {
    const values = facets.get(facet) ?? new Set();
    if (values.size < 2) continue;
    const select = make("select", {});
    select.append(make("option", { value: "", textContent: "all" }));
    for (const value of values) select.append(make("option", { value, textContent: value }));
    select.addEventListener("change", () => { chosen[facet] = select.value; choose(); });
    const label = make("label", {});
    label.append(facet + " ", select);
    bar.append(label);
  }
  if (tables.length) {
    const search = make("input", { type: "search", placeholder: "find rows", title: "Rows that have this text" });
    search.addEventListener("input", () => { sought = search.value.trim().toLowerCase(); choose(); });
    const label = make("label", {});
    search.setAttribute("aria-label", "Filter: rows that have this text");
    label.append(search);
    reset.addEventListener("click", () => {
      bar.reset();
      sought = "";
      for (const facet of Object.keys(chosen)) chosen[facet] = "";
      choose();
    });
    bar.append(label, reset, told);
    const fold = make("button", { type: "button", className: "choose-fold", textContent: "Choose rows" });
    fold.setAttribute("aria-expanded", "false");
    fold.addEventListener("click", () => fold.setAttribute("aria-expanded", String(bar.classList.toggle("open"))));
    document.querySelector(".bar-top").append(fold, bar);
  }

  // The contents say where the reader is.
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  let current = null;
  const here = () => {
    const line = document.querySelector(".bar-top").getBoundingClientRect().bottom + 40;
    let last = null;
    for (const section of main.querySelectorAll("section")) {
      if (section.getBoundingClientRect().top > line) break;
      if (links.has(section.id)) last = links.get(section.id);
    }
    if (last === current) return;
    current?.removeAttribute("aria-current");
    current = last;
    if (!last) return;
    last.setAttribute("aria-current", "location");
    const strip = last.parentElement;
    strip.scrollLeft = last.offsetLeft - strip.clientWidth / 2;
  };
  addEventListener("scroll", here, { passive: true });
  here();
})();
