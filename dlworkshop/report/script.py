"""The script of a page: sliders, checkboxes of series, tips, sortable tables.

Formulas that scroll can be reached by keyboard, so that the arrows scroll them.

A page is complete without the script. The script is the same on every page, so the
Content-Security-Policy allows it by its hash: nothing else can run, whatever the run
folder contains.
"""

import base64
import hashlib

SCRIPT = """
for (const figure of document.querySelectorAll("figure")) {
  const groups = (name) => figure.querySelectorAll("g[data-" + name + "]");
  const show = (group, shown) => shown ? group.removeAttribute("display")
    : group.setAttribute("display", "none");
  const control = figure.querySelector(".control");
  if (control) {
    const slider = control.querySelector("input");
    const names = JSON.parse(slider.dataset.names);
    const move = () => {
      for (const group of groups("frame"))
        show(group, group.dataset.frame === slider.value);
      control.querySelector("output").textContent = names[slider.value];
      slider.setAttribute("aria-valuetext", names[slider.value]);
    };
    slider.hidden = false;
    slider.value = slider.max;
    slider.addEventListener("input", move);
    move();
  }
  const series = [...new Set([...groups("series")].map((g) => g.dataset.series))];
  if (series.length > 1) {
    const boxes = document.createElement("p");
    boxes.className = "boxes";
    for (const name of series) {
      const label = document.createElement("label");
      const box = document.createElement("input");
      box.type = "checkbox";
      box.checked = true;
      box.addEventListener("change", () => {
        for (const group of groups("series"))
          if (group.dataset.series === name) show(group, box.checked);
      });
      label.append(box, " " + name);
      boxes.append(label);
    }
    figure.prepend(boxes);
  }
  if (groups("tip").length) {
    const tip = document.createElement("p");
    tip.className = "tip";
    tip.textContent = "Point at the figure to read its numbers.";
    figure.insertBefore(tip, figure.querySelector("figcaption"));
    const read = (event) => {
      const group = event.target.closest("g[data-tip]");
      if (group) tip.textContent = group.dataset.tip;
    };
    figure.addEventListener("pointerover", read);
    figure.addEventListener("focusin", (event) => {
      const group = event.target.closest("g[data-tip]") ||
        event.target.querySelector("g[data-tip]");
      if (group) tip.textContent = group.dataset.tip;
    });
  }
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => {
    const cell = row.cells[column];
    const data = cell.querySelector("data");
    const text = data ? data.value : cell.textContent;
    return text.trim() === "" || isNaN(text) ? text : Number(text);
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a, column), y = value(b, column);
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      });
      body.append(...rows);
    });
  });
}
const reachable = () => {
  for (const box of document.querySelectorAll(".beside > p"))
    box.tabIndex = box.scrollWidth > box.clientWidth ? 0 : -1;
};
addEventListener("resize", reachable);
reachable();
addEventListener("beforeprint", () => {
  for (const slider of document.querySelectorAll(".control input")) {
    slider.value = slider.max;
    slider.dispatchEvent(new Event("input"));
  }
});
"""

HASH = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()


def policy(images: str = "data:") -> str:
    """The Content-Security-Policy of a page: this script, inline styles, no network.

    Args:
        images: allowed sources of images.

    >>> policy().split("; ")[0]
    "default-src 'none'"
    """
    return (
        f"default-src 'none'; img-src {images}; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{HASH}'; base-uri 'none'; form-action 'none'"
    )
