"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const count = data.state.length;
  const root = document.documentElement;
  const states = { w: "waiting", r: "running", p: "paused", c: "complete", s: "stopped", f: "failed", i: "infeasible", x: "cancelled" };
  const state = (t) => data.state[t] === "c" && data.shades[0][t] === "." ? "outside the limits" : states[data.state[t]];
  const svgNS = "http://www.w3.org/2000/svg";

  // A column of figures by its name: place, seconds, number, v0 (an objective or limit), h0
  // (the same, or where a trial that is not complete stood last), p0 (a parameter).
  const column = (name) => {
    const index = Number(name.slice(1));
    switch (name[0]) {
      case "v": return (t) => data.values[index][t];
      case "h": return (t) => data.values[index][t] ?? (index === 0 ? data.last[t] : null);
      case "p":
        return name === "place" ? (t) => data.place[t] || null : (t) => data.params[index].values[t];
      case "s": return (t) => data.seconds[t];
    }
    return (t) => t;
  };
  const text = (number) => number === null || number === undefined ? "–" :
    Number.isInteger(number) && Math.abs(number) < 1e6 ? String(number) : String(Number(number.toPrecision(5))).replace("e+", "e");
  const cell = (name, t) => {
    const value = column(name)(t);
    if (name[0] === "p" && name !== "place" && value !== null) {
      const choices = data.params[Number(name.slice(1))].choices;
      return choices ? choices[value] : text(value);
    }
    if (name === "state") return state(t);
    if (name === "seconds") return value ? span(value) : "–";
    return text(value);
  };
  const span = (s) => s < 60 ? text(Math.round(s * 10) / 10) + " s" : s < 3600 ? Math.floor(s / 60) + " m " + Math.round(s % 60) + " s" : Math.floor(s / 3600) + " h " + Math.round(s % 3600 / 60) + " m";

  // Axes as the plots were drawn with them.
  const warps = {
    linear: (v) => v, log: Math.log, reverse_log: (v) => -Math.log1p(-v), logit: (v) => Math.log(v) - Math.log1p(-v),
  };
  const place = (a) => {
    const warp = warps[a.scale], low = warp(a.low), high = warp(a.high);
    return (v) => high <= low ? (a.from + a.to) / 2 : a.from + (warp(Math.min(Math.max(v, a.low), a.high)) - low) / (high - low) * (a.to - a.from);
  };
  const pixels = (a, missing) => {
    const value = column(a.column), at = place(a), found = new Float32Array(count);
    const choices = /^p\d/.test(a.column) && data.params[Number(a.column.slice(1))].choices;
    for (let t = 0; t < count; t++) {
      let v = value(t);
      if (choices && choices.length > 1 && v !== null) v += (t * 0.6180339887498949 % 1 - 0.5) * 0.6;
      found[t] = v === null || v === undefined ? missing(t) : at(v);
    }
    return found;
  };

  const plots = [...document.querySelectorAll("svg[data-x]")].map((svg) => ({
    svg, shades: data.shades[svg.dataset.shades],
    x: pixels(JSON.parse(svg.dataset.x), () => NaN), y: pixels(JSON.parse(svg.dataset.y), () => NaN),
  }));
  const parallels = [...document.querySelectorAll("svg[data-axes]")].map((svg) => {
    const shades = data.shades[svg.dataset.shades];
    const axes = JSON.parse(svg.dataset.axes);
    for (const a of axes) a.pixels = pixels(a, (t) => shades[t] === "." ? NaN : a.from + 20);
    return { svg, shades, axes };
  });
  if (count > 1500) root.classList.add("many");

  const make = (parent, name, attributes) => {
    const element = document.createElementNS(svgNS, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    return parent.appendChild(element);
  };
  for (const p of [...plots, ...parallels]) {
    const before = p.svg.querySelector(".best, .bestdot, .bestline");
    p.over = document.createElementNS(svgNS, "g");
    p.svg.insertBefore(p.over, before);
    p.top = make(p.svg, "g", {});
  }

  // The filter: what was dragged over on axes of parallel coordinates.
  let brushes = [];
  let selected = null;
  const apply = () => {
    selected = null;
    if (brushes.length) {
      selected = [];
      for (let t = 0; t < count; t++) {
        if (brushes.every((b) => b.axis.pixels[t] >= b.low && b.axis.pixels[t] <= b.high)) selected.push(t);
      }
    }
    root.classList.toggle("filtered", selected !== null);
    for (const p of plots) overlay(p, "dot ", "over dots-over", (t) => isNaN(p.x[t]) || isNaN(p.y[t]) ? "" : `M${p.x[t].toFixed(1)} ${p.y[t].toFixed(1)}h0`);
    const drawn = selected && selected.filter((t) => data.state[t] === "c");
    const every = drawn ? Math.ceil(drawn.length / 600) : 1;
    for (const p of parallels) overlay(p, "", "over lines-over", (t, i) => i % every ? "" : line(p, t), drawn);
    rows = null;
    table();
  };
  const line = (p, t) => p.shades[t] === "." ? "" : p.axes.map((a, i) => (i ? "L" : "M") + a.x + " " + a.pixels[t].toFixed(1)).join("");
  const overlay = (p, prefix, name, draw, of = selected) => {
    p.over.replaceChildren();
    if (!selected) return;
    p.over.setAttribute("class", name.includes("lines") ? "over lines" : "over");
    p.over.style.opacity = 1;
    const paths = {};
    of.forEach((t, i) => (paths[p.shades[t]] ??= []).push(draw(t, i)));
    for (const shade of Object.keys(paths).sort()) {
      make(p.over, "path", { class: prefix + (shade === "." ? "stopped" : "s" + (shade.charCodeAt(0) - 97)), d: paths[shade].join("") });
    }
  };

  for (const p of parallels) {
    for (const axis of p.axes) {
      const grip = make(p.svg, "rect", { class: "grip", x: axis.x - 14, width: 28, y: axis.to - 6, height: axis.from - axis.to + 26 });
      const y = (event) => { const box = p.svg.getBoundingClientRect(); return (event.clientY - box.top) * p.svg.viewBox.baseVal.height / box.height; };
      let begin = null, waiting = false;
      grip.addEventListener("pointerdown", (event) => { begin = y(event); grip.setPointerCapture(event.pointerId); event.preventDefault(); });
      grip.addEventListener("pointermove", (event) => {
        if (begin === null || waiting) return;
        const from = begin, now = y(event);
        waiting = true;
        requestAnimationFrame(() => { waiting = false; set(p, axis, Math.min(from, now), Math.max(from, now)); });
      });
      grip.addEventListener("pointerup", (event) => {
        const now = y(event);
        if (Math.abs(now - begin) < 3) set(p, axis, 0, 0);
        begin = null;
      });
    }
  }
  const set = (p, axis, low, high) => {
    brushes = brushes.filter((b) => { if (b.axis === axis) b.box.remove(); return b.axis !== axis; });
    if (high > low) brushes.push({ axis, low, high, box: make(p.svg, "rect", { class: "brush", x: axis.x - 7, width: 14, y: low, height: high - low, rx: 3 }) });
    apply();
  };

  // Hovering: the nearest trial is marked in every plot.
  const tip = document.getElementById("tip");
  const mark = (t, event) => {
    for (const p of plots) {
      p.top.replaceChildren();
      if (t !== null && !isNaN(p.x[t]) && !isNaN(p.y[t])) make(p.top, "circle", { class: "mark", cx: p.x[t], cy: p.y[t], r: 6.5 });
    }
    for (const p of parallels) {
      p.top.replaceChildren();
      if (t !== null && line(p, t)) make(p.top, "path", { class: "mark", d: line(p, t) });
    }
    tip.hidden = t === null || !event;
    if (tip.hidden) return;
    tip.replaceChildren();
    const head = tip.appendChild(document.createElement("b"));
    head.textContent = "trial " + t + (state(t) === "complete" ? "" : " · " + state(t));
    const list = tip.appendChild(document.createElement("dl"));
    const row = (name, value, kind) => {
      const dt = list.appendChild(document.createElement("dt")), dd = list.appendChild(document.createElement("dd"));
      dt.textContent = name; dd.textContent = value;
      if (kind) dd.className = kind;
    };
    data.objectives.concat(data.limits ?? []).forEach((name, i) => { if (data.values[i][t] !== null) row(name, text(data.values[i][t]), "value"); });
    if (data.last[t] !== null) row(data.objectives[0] + " last", text(data.last[t]), "value");
    data.params.slice(0, 24).forEach((q, i) => { if (q.values[t] !== null) row(q.name, cell("p" + i, t)); });
    if (data.seconds[t]) row("took", span(data.seconds[t]));
    if (data.made?.[t]) row("added by", data.made[t]);
    if (data.reasons?.[t]) row("because", data.reasons[t]);
    const box = tip.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(event.clientX + 16, innerWidth - box.width - 8)) + "px";
    tip.style.top = Math.max(8, Math.min(event.clientY + 16, innerHeight - box.height - 8)) + "px";
  };
  const within = (svg, event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  };
  const each = (visit) => { if (selected) selected.forEach(visit); else for (let t = 0; t < count; t++) visit(t); };
  for (const p of plots) {
    p.svg.addEventListener("pointermove", (event) => {
      const [x, y] = within(p.svg, event);
      let nearest = null, least = 18 * 18;
      each((t) => {
        const distance = (p.x[t] - x) ** 2 + (p.y[t] - y) ** 2;
        if (distance < least) { least = distance; nearest = t; }
      });
      mark(nearest, event);
    });
    p.svg.addEventListener("pointerleave", () => mark(null));
  }
  for (const p of parallels) {
    p.svg.addEventListener("pointermove", (event) => {
      if (event.buttons) return;
      const [x, y] = within(p.svg, event);
      let i = p.axes.findIndex((a) => a.x >= x);
      if (i < 1) i = i < 0 ? p.axes.length - 1 : 1;
      const before = p.axes[i - 1], after = p.axes[i], share = (x - before.x) / (after.x - before.x);
      let nearest = null, least = 9;
      each((t) => {
        const distance = Math.abs(before.pixels[t] + (after.pixels[t] - before.pixels[t]) * share - y);
        if (distance < least) { least = distance; nearest = t; }
      });
      mark(nearest, event);
    });
    p.svg.addEventListener("pointerleave", () => mark(null));
  }

  // The table.
  const body = document.querySelector("#trials tbody");
  const headings = [...document.querySelectorAll("#trials th")];
  const more = document.getElementById("more"), shown = document.getElementById("shown"), clear = document.getElementById("clear");
  let sorted = { column: "v0", down: data.maximize[0] }, most = 25, rows = null;
  const key = (name) => name === "state" ? state : column(name);
  const table = () => {
    if (!rows) {
      const value = key(sorted.column);
      rows = selected ? selected.slice() : Array.from({ length: count }, (_, t) => t);
      rows.sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === null || y === null) return (x === null) - (y === null) || a - b;
        return (x < y ? -1 : x > y ? 1 : a - b) * (sorted.down ? -1 : 1);
      });
    }
    body.replaceChildren(...rows.slice(0, most).map((t) => {
      const tr = document.createElement("tr");
      for (const th of headings) {
        const td = tr.appendChild(document.createElement("td"));
        td.textContent = td.title = cell(th.dataset.column, t);
      }
      tr.addEventListener("pointerenter", () => mark(t));
      tr.addEventListener("pointerleave", () => mark(null));
      return tr;
    }));
    for (const th of headings) {
      if (th.dataset.column === sorted.column) th.dataset.sorted = sorted.down ? "down" : "up"; else delete th.dataset.sorted;
    }
    more.hidden = rows.length <= most;
    clear.hidden = !selected;
    shown.textContent = `${Math.min(most, rows.length)} of ${rows.length}` + (selected ? ` that the filter lets through` : "");
  };
  for (const th of headings) {
    th.addEventListener("click", () => {
      sorted = { column: th.dataset.column, down: sorted.column === th.dataset.column && !sorted.down };
      rows = null;
      table();
    });
  }
  more.addEventListener("click", () => { most *= 4; table(); });
  clear.addEventListener("click", () => { brushes.forEach((b) => b.box.remove()); brushes = []; apply(); });
  table();

  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
})();
