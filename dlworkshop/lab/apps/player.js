// Run, Stop, Step and Start over. A frame is asked for when the last one is drawn, so
// training goes as fast as can be shown, and rests while nobody looks.
function render({ model, el }) {
  let running = false;
  const button = (label, act) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = label;
    made.addEventListener("click", act);
    return made;
  };
  const ask = (name) => {
    model.set(name, model.get(name) + 1);
    model.save_changes();
  };
  const turn = (on) => {
    running = on;
    run.textContent = on ? "Stop" : "Run";
    step.disabled = again.disabled = on;
    if (on) ask("asked");
  };
  const run = button("Run", () => turn(!running));
  const step = button("Step", () => ask("asked"));
  run.className = "lab-run";
  const again = button("Start over", () => ask("starts"));
  const said = document.createElement("span");
  const frame = document.createElement("div");
  const bar = document.createElement("div");
  bar.className = "lab-bar";
  bar.append(run, step, again, said);
  el.classList.add("lab");
  el.append(bar, frame);

  const show = () => {
    const view = model.get("view");
    frame.innerHTML = view.html;
    said.textContent = view.said;
    if (running && view.ended) turn(false);
    else if (running) requestAnimationFrame(() => running && ask("asked"));
  };
  model.on("change:view", show);
  show();
  return () => { running = false; };
}
export default { render };
