// Table 6: the mark that is nearest to the pointer, or that arrow keys reach, says its words.

function accuracy(figure) {
  const svg = figure.querySelector("svg"), said = figure.querySelector(".said");
  const marks = [...svg.querySelectorAll(".point")].map((g) => ({
    g, x: Number(g.dataset.x), y: Number(g.dataset.y), column: Number(g.dataset.column), set: g.dataset.set,
  }));
  if (!marks.length) return;
  let at = marks[0];
  at.g.setAttribute("tabindex", 0);
  said.textContent = "Point at a mark or tap it, or go from one to the next by arrow keys.";
  const choose = (mark) => {
    for (const each of [at.g, byId(`row-${at.g.dataset.row}`)]) each.classList.remove("chosen");
    at.g.setAttribute("tabindex", -1);
    at = mark;
    for (const each of [at.g, byId(`row-${at.g.dataset.row}`)]) each.classList.add("chosen");
    at.g.setAttribute("tabindex", 0);
    said.textContent = at.g.querySelector("title").textContent;
  };
  const point = (event) => {
    const box = svg.getBoundingClientRect(), unit = svg.viewBox.baseVal.width / box.width;
    const far = (m) => Math.hypot(m.x - (event.clientX - box.left) * unit, m.y - (event.clientY - box.top) * unit);
    const near = marks.reduce((a, b) => far(b) < far(a) ? b : a);
    if (far(near) < 40 && !near.g.classList.contains("chosen")) choose(near);
  };
  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("focusin", (event) => {
    const mark = marks.find((m) => m.g === event.target);
    if (mark) choose(mark);
  });
  svg.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    let next;
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      const column = marks.filter((m) => m.column === at.column).sort((a, b) => a.y - b.y);
      next = column[column.indexOf(at) + step];
    } else {  // the next rank of the same set, or what is nearest there
      const cost = (m) => 1e4 * Math.abs(m.column - at.column) + (m.set === at.set ? 0 : 1 + Math.abs(m.y - at.y));
      next = marks.filter((m) => (m.column - at.column) * step > 0).sort((a, b) => cost(a) - cost(b))[0];
    }
    if (next) next.g.focus();
  });
}

document.querySelectorAll(".accuracy").forEach(accuracy);
