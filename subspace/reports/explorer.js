// The map of modules, and one module at a time. No library, no request; text from files is only
// ever set as text. The grids are the page's own numbers: phi in steps of 1/phi_steps, then p.
"use strict";

const byId = (id) => document.getElementById(id);
const DATA = JSON.parse(byId("data").textContent);

async function unpacked() {
  const packed = Uint8Array.from(atob(byId("grids").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const bytes = await new Response(stream).arrayBuffer();
  const view = new DataView(bytes);
  const numbers = new Uint16Array(bytes.byteLength / 2);
  for (let n = 0; n < numbers.length; n++) numbers[n] = view.getUint16(2 * n, true);
  return numbers;
}

function explorer(grids) {
  const state = { module: 0, stop: 0, measure: null, cut: 1, pair: 0, i: 1, j: 1 };

  // Numbers

  function cell(m, i, j) {
    const at = (i - 1) * m.b + j - 1;
    const phi = grids[m.at + at], p = grids[m.at + m.a * m.b + at];
    return {
      phi: phi >= DATA.masked ? null : phi / DATA.phi_steps,
      why: phi === DATA.masked ? "the cut falls within a cluster of singular values"
        : phi === DATA.undefined ? "beyond what rounding leaves" : "",
      chance: Math.min(1, Math.max(i, j) / m.d),
      p: p === DATA.undefined ? null : 10 ** (-p / DATA.p_steps),
    };
  }

  function probability(p) {
    if (p === null) return "–";
    if (p < 1e-12) return "< 1e-12";
    return p < 0.01 ? p.toExponential(1) : p.toFixed(2);
  }

  // What the map can be coloured by: a name, a value of each module, and the ends of the scale.

  function measures() {
    const out = [];
    DATA.pairs.forEach((pair, n) => {
      const names = pair.names.join(" and ");
      const most = Math.max(...Object.values(pair.modules).map((m) => Math.min(m.a, m.b)));
      out.push({
        label: `φ(k, k) of ${names}`, pair: n, cuts: most, low: 0, high: 1, written: (v) => v.toFixed(3),
        of: (m) => {
          const held = pair.modules[m];
          if (!held || state.cut > Math.min(held.a, held.b)) return null;
          return cell(held, state.cut, state.cut).phi;
        },
      });
      out.push({
        label: `directions that agree, ${names}`, pair: n, low: 0,
        of: (m) => pair.modules[m] ? pair.modules[m].agreeing : null,
      });
    });
    for (const runs of DATA.replicable) out.push({
      label: `replicable rank, ${runs.names.join(", ")}`, low: 0, of: (m) => runs.modules[m],
    });
    DATA.adapters.forEach((modules, n) => {
      const name = DATA.sources[n];
      const add = (label, key, more) => out.push({
        label: `${label} of ${name}`, of: (m) => modules[m] ? modules[m][key] : null, ...more,
      });
      if (Object.values(modules).some((m) => "factor" in m)) {
        add("W met, × chance (* outside it),", "null_ratio", {
          log: true, star: (m) => modules[m] && modules[m].significant,
        });
        add("amplification factor", "factor", { log: true });
      }
      add("‖ΔW‖", "norm", { low: 0 });
      add("effective rank by entropy", "entropy", { low: 1 });
    });
    return out;
  }

  const MEASURES = measures();

  function scale(measure) {
    const values = DATA.modules.map((_, m) => measure.of(m)).filter((v) => v !== null && v !== undefined);
    const low = measure.low ?? Math.min(...values), high = measure.high ?? Math.max(...values);
    const f = measure.log ? Math.log : (x) => x;
    return {
      low, high, defined: values.length > 0,
      colour: (v) => {
        const t = high > low ? (f(v) - f(low)) / (f(high) - f(low)) : 0;
        return DATA.colours[Math.round(Math.min(1, Math.max(0, t)) * (DATA.colours.length - 1))];
      },
    };
  }

  function inkOn(colour) {
    const [r, g, b] = [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16) / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "#000" : "#fff";
  }

  // The map

  const buttons = new Map();

  function buildMap() {
    const table = byId("map"), head = element("thead"), body = element("tbody");
    const top = head.appendChild(element("tr"));
    top.append(element("td"));
    for (const column of DATA.columns) {
      const name = top.appendChild(element("th", "", { scope: "col" }));
      name.append(...column.split(/(?<=[._])/).flatMap((part, n) => n ? [element("wbr"), part] : [part]));
    }
    DATA.rows.forEach((row, r) => {
      const line = body.appendChild(element("tr"));
      line.append(element("th", row, { scope: "row" }));
      DATA.columns.forEach((_, c) => {
        const place = line.appendChild(element("td"));
        const m = DATA.modules.findIndex((held) => held[1] === r && held[2] === c);
        if (m < 0) return;
        const button = place.appendChild(element("button", "", { type: "button", tabindex: -1 }));
        button.addEventListener("click", () => { state.module = m; stopAt(m); show(); reveal(); });
        buttons.set(m, button);
      });
    });
    table.append(head, body);
    body.addEventListener("keydown", walk);
  }

  // Tab enters the map once, at the cell where it was left; arrow keys go from cell to cell.
  function stopAt(m) {
    buttons.get(state.stop).setAttribute("tabindex", -1);
    state.stop = m;
    buttons.get(m).setAttribute("tabindex", 0);
  }

  // On a phone the module lies below the map: a choice brings it into sight.
  function reveal() {
    const { top, bottom } = byId("module").getBoundingClientRect();
    if (top < innerHeight * 0.6 && bottom > innerHeight * 0.3) return;
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("module").scrollIntoView({ behavior: calm ? "auto" : "smooth", block: "start" });
  }

  function walk(event) {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    const here = [...buttons].find(([, button]) => button === document.activeElement);
    if (!here) return;
    let [, r, c] = DATA.modules[here[0]];
    for (;;) {
      r += step[0]; c += step[1];
      if (r < 0 || c < 0 || r >= DATA.rows.length || c >= DATA.columns.length) return;
      const m = DATA.modules.findIndex((held) => held[1] === r && held[2] === c);
      if (m < 0) continue;
      event.preventDefault();
      stopAt(m);
      buttons.get(m).focus();
      return;
    }
  }

  function paintMap() {
    const measure = MEASURES[state.measure], colours = scale(measure);
    byId("cut-label").hidden = !measure.cuts;
    if (measure.cuts) {
      byId("cut").max = measure.cuts;
      state.cut = Math.min(state.cut, measure.cuts);
      byId("cut").value = state.cut;
      byId("cut-value").textContent = state.cut;
    }
    byId("in-force").textContent = `Coloured by ${measure.label}${measure.cuts ? `, k = ${state.cut}` : ""}.`;
    byId("low").textContent = colours.defined ? three(colours.low) : "undefined";
    byId("high").textContent = colours.defined ? three(colours.high) : "";
    for (const [m, button] of buttons) {
      const value = measure.of(m), known = value !== null && value !== undefined;
      const colour = known ? colours.colour(value) : "";
      button.style.background = colour;
      button.style.color = known ? inkOn(colour) : "";
      button.textContent = (known && measure.written ? measure.written : three)(value) + (measure.star && measure.star(m) ? "*" : "");
      button.setAttribute("aria-pressed", String(m === state.module));
      button.setAttribute("aria-label", `${DATA.modules[m][0]}: ${measure.label}: ${button.textContent}`);
      button.title = DATA.modules[m][0];
    }
  }

  // One module

  function paintModule() {
    const [name] = DATA.modules[state.module];
    byId("module-name").textContent = name;
    const pair = DATA.pairs[state.pair], m = pair && pair.modules[state.module];
    byId("phi").hidden = !m;
    byId("module-note").textContent = m ? m.note : "";
    if (m) paintPhi(pair, m);
    const held = DATA.adapters.map((modules) => modules[state.module]);
    spectraOf(held);
    curveOf(held);
  }

  function paintPhi(pair, m) {
    state.i = Math.min(state.i, m.a);
    state.j = Math.min(state.j, m.b);
    byId("i-name").textContent = pair.names[0];
    byId("j-name").textContent = pair.names[1];
    for (const [id, most] of [["i", m.a], ["j", m.b]]) {
      byId(id).max = most;
      byId(id).value = state[id];
      byId(`${id}-value`).textContent = state[id];
    }
    const heat = byId("heat"), image = new ImageData(m.b, m.a);
    heat.width = m.b;
    heat.height = m.a;
    for (let i = 1; i <= m.a; i++) for (let j = 1; j <= m.b; j++) {
      const { phi } = cell(m, i, j);
      if (phi === null) continue;  // transparent: the hatching shows
      const colour = DATA.colours[Math.round(phi * (DATA.colours.length - 1))];
      const at = 4 * ((i - 1) * m.b + j - 1);
      for (let k = 0; k < 3; k++) image.data[at + k] = parseInt(colour.slice(1 + 2 * k, 3 + 2 * k), 16);
      image.data[at + 3] = 255;
    }
    heat.getContext("2d").putImageData(image, 0, 0);
    byId("pair-in-force").textContent = `Adapters ${pair.names.join(" and ")}.`;
    byId("i-axis").textContent = `i of ${pair.names[0]}`;
    byId("j-axis").textContent = `j of ${pair.names[1]}`;
    gridTicks(byId("i-ticks"), m.a, "top");
    gridTicks(byId("j-ticks"), m.b, "left");
    heat.setAttribute("aria-label", `φ(i, j) of ${pair.names.join(" and ")}, ${m.a} by ${m.b}`);
    outline(m);
    paintValue();
  }

  function outline(m) {
    const inside = (i, j) => {
      if (i < 1 || j < 1 || i > m.a || j > m.b) return false;
      const { p } = cell(m, i, j);
      return p !== null && p <= DATA.level;
    };
    const path = [];
    let beyond = 0, undefinedCells = 0;
    for (let i = 1; i <= m.a; i++) for (let j = 1; j <= m.b; j++) {
      undefinedCells += cell(m, i, j).phi === null;
      if (!inside(i, j)) continue;
      beyond++;
      if (i > 1 && !inside(i - 1, j)) path.push(`M${j - 1} ${i - 1}h1`);
      if (i < m.a && !inside(i + 1, j)) path.push(`M${j - 1} ${i}h1`);
      if (j > 1 && !inside(i, j - 1)) path.push(`M${j - 1} ${i - 1}v1`);
      if (j < m.b && !inside(i, j + 1)) path.push(`M${j} ${i - 1}v1`);
    }
    const svg = byId("contour");
    svg.setAttribute("viewBox", `0 0 ${m.b} ${m.a}`);
    svg.firstElementChild.setAttribute("d", path.join(""));
    const all = m.a * m.b, level = `p at or below ${DATA.level}`;
    byId("beyond").textContent = (beyond === all ? `Every cell has ${level}`
      : beyond ? `Outlined: ${level} (${beyond} of ${all} cells)` : `No cell has ${level}`)
      + (undefinedCells ? "; hatched: undefined." : ".");
  }

  function paintValue() {
    const pair = DATA.pairs[state.pair], m = pair.modules[state.module];
    const { phi, why, chance, p } = cell(m, state.i, state.j);
    byId("value").textContent = phi === null
      ? `φ(${state.i}, ${state.j}) is undefined: ${why}`
      : `φ(${state.i}, ${state.j}) = ${phi < 0.01 ? three(phi) : phi.toFixed(3)}; chance ${three(chance)}; p ${probability(p)}`;
    const cursor = byId("cursor").style;
    cursor.left = `${(100 * (state.j - 1)) / m.b}%`;
    cursor.top = `${(100 * (state.i - 1)) / m.a}%`;
    cursor.width = `${100 / m.b}%`;
    cursor.height = `${100 / m.a}%`;
    byId("i-value").textContent = state.i;
    byId("j-value").textContent = state.j;
  }

  function show() {
    paintMap();
    paintModule();
  }

  // Controls

  MEASURES.forEach((measure, n) => byId("measure").append(element("option", measure.label, { value: n })));
  DATA.pairs.forEach((pair, n) => byId("pair").append(element("option", pair.names.join(" and "), { value: n })));
  byId("measure").addEventListener("change", (event) => {
    state.measure = Number(event.target.value);
    state.pair = MEASURES[state.measure].pair ?? state.pair;
    byId("pair").value = state.pair;
    show();
  });
  byId("pair").addEventListener("change", (event) => { state.pair = Number(event.target.value); paintModule(); });
  byId("cut").addEventListener("input", (event) => { state.cut = Number(event.target.value); paintMap(); });
  for (const id of ["i", "j"]) {
    byId(id).addEventListener("input", (event) => { state[id] = Number(event.target.value); paintValue(); });
  }
  byId("heat").addEventListener("click", (event) => {
    const m = DATA.pairs[state.pair].modules[state.module], box = byId("heat").getBoundingClientRect();
    state.i = Math.min(m.a, 1 + Math.floor(((event.clientY - box.top) / box.height) * m.a));
    state.j = Math.min(m.b, 1 + Math.floor(((event.clientX - box.left) / box.width) * m.b));
    byId("i").value = state.i;
    byId("j").value = state.j;
    paintValue();
  });

  state.measure = 0;
  state.module = state.stop = Math.floor((DATA.modules.length - 1) / 2);
  buildMap();
  stopAt(state.module);
  for (const id of ["bar", "phi-bar"]) byId(id).style.background = `linear-gradient(to right, ${DATA.colours.join(",")})`;
  byId("explorer").hidden = false;
  document.querySelector(".noscript").hidden = true;
  show();
}

unpacked().then(explorer, (error) => {
  document.querySelector(".explorer").classList.add("failed");
  document.querySelector(".noscript").textContent = `This browser cannot show the map (${error.message}); every number is in the tables below.`;
});
