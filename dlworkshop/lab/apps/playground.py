# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The playground: watch a population train on points of a plane."""

import marimo

app = marimo.App(app_title="Playground", width="medium", css_file="lab.css")

with app.setup:
    import marimo as mo

    from dlworkshop.errors import UserError
    from dlworkshop.lab import settings as known
    from dlworkshop.lab.apps.pieces import Number, heading, sentence
    from dlworkshop.lab.apps.widgets import Player


@app.cell
def _():
    heading(
        "Playground",
        "Watch a population train: every learning rate with every seed, in one "
        "program. Each card shows one learning rate: the average prediction of its "
        "members with the decision boundary of each, and beside it the spread of the "
        "members, black where they disagree. Filled points are training points, small "
        "ones are validation points.",
    )


@app.cell
def _():
    query = mo.query_params()
    try:
        first, refused = known.settings_of(query.to_dict()), None
    except UserError as _error:
        first, refused = known.Settings(), sentence(_error)
    refused
    return first, query


@app.cell
def _(first):
    def choice(name, label):
        options = list(known.NAMED[name])
        return mo.ui.dropdown(options, getattr(first, name), label=label)

    def number(name, label):
        low, high = known.WHOLE[name]
        return Number(low, high, 1, getattr(first, name), label=label)

    controls = mo.ui.dictionary(
        {
            "points": choice("points", "Points"),
            "size": number("size", "Number of points"),
            "noise": Number(0, known.MOST_NOISE, 0.01, first.noise, label="Noise"),
            "depth": number("depth", "Hidden layers"),
            "width": number("width", "Width"),
            "activation": choice("activation", "Activation"),
            "optimizer": choice("optimizer", "Optimizer"),
            "batch": number("batch", "Batch size"),
            "rates": mo.ui.text(
                ", ".join(map(repr, first.rates)), label="Learning rates"
            ),
            "seeds": number("seeds", "Seeds"),
        }
    )
    mo.hstack(list(controls.elements.values()), wrap=True, justify="start", gap=1)
    return (controls,)


@app.cell
def _(controls, query):
    try:
        settings = known.settings_of(controls.value)
    except UserError as _error:
        mo.stop(True, sentence(_error))
    for name, text in known.to_query(settings).items():
        if query.get(name) != text:
            query[name] = text
    mo.ui.anywidget(Player(settings))


if __name__ == "__main__":
    app.run()
