# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""Draw a digit: the prediction of each member of a run, and its explanation."""

import marimo

app = marimo.App(app_title="Draw a digit", width="medium", css_file="lab.css")

with app.setup:
    import marimo as mo

    from dlworkshop.errors import UserError
    from dlworkshop.lab import digit, drawing, stills
    from dlworkshop.lab.apps.pieces import heading, run_of_page, sentence, styled
    from dlworkshop.lab.apps.widgets import Canvas


@app.cell
def _():
    heading(
        "Draw a digit",
        "Draw with mouse, pen or finger. The drawing is converted into an image like "
        "the training images of the run, and each of its members predicts the class.",
    )


@app.cell
def _():
    _, run = run_of_page()
    try:
        dataset = digit.dataset_of(run)
        hand = drawing.hand_of(dataset.train.inputs)
    except UserError as _error:
        mo.stop(True, sentence(_error))
    canvas = mo.ui.anywidget(Canvas())
    return canvas, dataset, hand, run


@app.cell
def _(canvas):
    canvas


@app.cell
def _(canvas, dataset, hand, run):
    try:
        image = drawing.image_of(drawing.strokes_of(canvas.value["strokes"]), hand)
    except UserError as _error:
        mo.stop(True, mo.md(f"*{_error}*"))
    found = digit.answer(run, dataset, image)
    styled(stills.answered(found, image, run, dataset))


if __name__ == "__main__":
    app.run()
