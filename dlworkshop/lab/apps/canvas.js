// A square to draw in. What is sent are the strokes, lists of [x, y] in [0, 1], when
// the pen is lifted.
function render({ model, el }) {
  const SIDE = 280;
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "Draw here with mouse, pen or finger");
  const pen = canvas.getContext("2d");
  let strokes = [...model.get("strokes")];
  let drawing = false;

  const draw = () => {
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, SIDE, SIDE);
    pen.strokeStyle = "#111";
    pen.lineWidth = SIDE / 14;
    pen.lineCap = pen.lineJoin = "round";
    for (const stroke of strokes) {
      pen.beginPath();
      for (const [x, y] of stroke) pen.lineTo(x * SIDE, y * SIDE);
      if (stroke.length === 1) pen.lineTo(stroke[0][0] * SIDE, stroke[0][1] * SIDE);
      pen.stroke();
    }
  };
  const send = () => {
    model.set("strokes", strokes);
    model.save_changes();
  };
  const place = (event) => {
    const box = canvas.getBoundingClientRect();
    const inside = (value) => Math.min(1, Math.max(0, value));
    return [
      inside((event.clientX - box.left) / box.width),
      inside((event.clientY - box.top) / box.height),
    ];
  };
  canvas.addEventListener("pointerdown", (event) => {
    drawing = true;
    canvas.setPointerCapture(event.pointerId);
    strokes = [...strokes, [place(event)]];
    draw();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    strokes[strokes.length - 1].push(place(event));
    draw();
  });
  const lift = () => {
    if (!drawing) return;
    drawing = false;
    send();
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);

  const bar = document.createElement("div");
  bar.className = "lab-bar";
  const keep = { Undo: () => strokes.slice(0, -1), Clear: () => [] };
  for (const [label, rest] of Object.entries(keep)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = label;
    button.addEventListener("click", () => {
      strokes = rest();
      draw();
      send();
    });
    bar.append(button);
  }
  el.classList.add("lab");
  el.append(canvas, bar);
  draw();
}
export default { render };
