// What is drawn with axes: a module's spectra and its curve, 320 x 200, both axes logarithmic.

const SVG = "http://www.w3.org/2000/svg";
const three = (x) => x === null || x === undefined ? "–" : Number(x.toPrecision(3)).toString();

function element(tag, text, attributes = {}) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function shape(svg, tag, attributes, text) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return svg.appendChild(made);
}

// A few of 1 … n along a side of the heatmap, each at the middle of its cell.
function gridTicks(place, n, side) {
  const at = new Set([0, 1, 2, 3, 4].map((t) => Math.max(1, Math.round((t * n) / 4))));
  place.replaceChildren(...[...at].map((k) => {
    const made = element("span", k);
    made.style[side] = `${(100 * (k - 0.5)) / n}%`;
    return made;
  }));
}

// Powers of two for k; for a value 1, 2, 5 of every decade, or as many of these as there is room.
function powers(low, high) {
  const out = [];
  for (let k = 1; k <= high; k *= 2) if (k >= low) out.push(k);
  return out.length ? out : [low];
}

function decades(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high));
  for (const [steps, every] of [[[1, 2, 5], 1], [[1, 3], 1], [[1], 1], [[1], 2], [[1], 4], [[1], 16], [[1], 64]]) {
    const out = [];
    for (let e = first; e <= last; e += every) out.push(...steps.map((s) => Number(`${s}e${e}`)));
    const inside = out.filter((v) => v >= low && v <= high);
    if (inside.length <= 6) return inside.length > 1 ? inside : [low, high];
  }
  return [low, high];
}

const short = (v) => v >= 1e5 || v < 1e-3 ? Number(v.toPrecision(2)).toExponential() : three(v);

// Draw the axes; return x and y, functions from numbers to places.
function frame(svg, xs, ys, title) {
  svg.replaceChildren();
  const [x0, x1, y0, y1] = [56, 312, 164, 10];
  const between = ([low, high], a, b) => (v) =>
    a + (high > low ? Math.log(v / low) / Math.log(high / low) : 0.5) * (b - a);
  const x = between(xs, x0, x1), y = between(ys, y0, y1);
  for (const v of decades(...ys)) {
    shape(svg, "path", { class: "grid", d: `M${x0} ${y(v)}H${x1}` });
    shape(svg, "text", { x: x0 - 5, y: y(v) + 3, "text-anchor": "end" }, short(v));
  }
  for (const v of powers(...xs)) {
    shape(svg, "path", { class: "axis", d: `M${x(v)} ${y0}v3` });
    shape(svg, "text", { x: x(v), y: y0 + 14, "text-anchor": "middle" }, v);
  }
  shape(svg, "path", { class: "axis", d: `M${x0} ${y1}V${y0}H${x1}` });
  shape(svg, "text", { x: (x0 + x1) / 2, y: 194, "text-anchor": "middle" }, "k (log)");
  shape(svg, "text", { transform: `translate(11 ${(y0 + y1) / 2}) rotate(-90)`, "text-anchor": "middle" }, title);
  return [x, y];
}

const line = (points) => points.map(([a, b], n) => `${n ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");

// A sample of each line beside its name.
function keyOf(place, more = []) {
  const rows = [...DATA.sources.map((name, n) => [`line c${n % 5}`, name]), ...more];
  place.replaceChildren(...rows.map(([kind, name]) => {
    const item = element("li");
    const svg = shape(item, "svg", { viewBox: "0 0 28 12", "aria-hidden": "true" });
    shape(svg, "path", { class: kind, d: kind === "band" ? "M0 1H28V11H0Z" : "M0 6H28" });
    item.append(` ${name}`);
    return item;
  }));
}

function spectraOf(held) {
  const svg = byId("spectra");
  const all = held.flatMap((m) => m ? m.S : []).filter((s) => s > 0);
  keyOf(byId("spectra-key"));
  if (!all.length) {
    svg.replaceChildren();
    shape(svg, "text", { x: 160, y: 100, "text-anchor": "middle" }, "nothing was trained here");
    svg.setAttribute("aria-label", "no singular values");
    return;
  }
  const most = Math.max(...held.map((m) => m ? m.S.length : 1));
  const [x, y] = frame(svg, [1, most], [Math.min(...all), Math.max(...all)], "singular value (log)");
  held.forEach((m, n) => {
    if (!m || !m.S.length) return;
    const points = m.S.map((s, k) => [x(k + 1), y(s)]);
    if (points.length === 1) shape(svg, "circle", { cx: points[0][0], cy: points[0][1], r: 3, class: `c${n % 5}` });
    shape(svg, "path", { class: `line c${n % 5}`, d: line(points) });
  });
  svg.setAttribute("aria-label", held.map((m, n) => m && m.S.length
    ? `${DATA.sources[n]}: ${m.S.length} singular values from ${three(m.S[0])} to ${three(m.S.at(-1))}` : "").join("; "));
}

function curveOf(modules) {
  const svg = byId("curve"), held = modules.map((m) => m && m.curve);
  const rows = held.flatMap((c) => c || []).filter((row) => row.slice(1, 3).every((v) => v !== null));
  byId("curve-figure").hidden = !rows.length;
  if (!rows.length) return;
  keyOf(byId("curve-key"), [["line chance", "chance"], ["band", "its central 95 %"]]);
  const values = rows.flatMap((row) => row.slice(1)).filter((v) => v !== null && v > 0);
  const ks = rows.map((row) => row[0]);
  const [x, y] = frame(svg, [Math.min(...ks), Math.max(...ks)], [Math.min(...values), Math.max(...values)],
    "amplification factor (log)");
  const known = held.map((curve) => (curve || []).filter((row) => row.slice(1).every((v) => v !== null)));
  const longest = known.reduce((a, b) => b.length > a.length ? b : a);
  const up = longest.map(([k, , , low]) => [x(k), y(low)]), down = longest.map(([k, , , , high]) => [x(k), y(high)]);
  if (longest.length) shape(svg, "path", { class: "band", d: `${line(up)}L${line(down.reverse()).slice(1)}Z` });
  for (const each of known) {
    shape(svg, "path", { class: "line chance", d: line(each.map(([k, , chance]) => [x(k), y(chance)])) });
  }
  known.forEach((each, n) => {
    shape(svg, "path", { class: `line c${n % 5}`, d: line(each.map(([k, factor]) => [x(k), y(factor)])) });
  });
  svg.setAttribute("aria-label", held.map((curve, n) => curve && curve.length
    ? `${DATA.sources[n]}: factor ${three(curve.at(-1)[1])} at k = ${curve.at(-1)[0]}, by chance ${three(curve.at(-1)[2])}` : "").join("; "));
}
