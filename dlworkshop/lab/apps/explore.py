# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""Explore a run: its members, their curves, mistakes and filters."""

import marimo

app = marimo.App(app_title="Explore a run", width="medium", css_file="lab.css")

with app.setup:
    import marimo as mo

    from dlworkshop.errors import UserError
    from dlworkshop.lab import digit, explore, stills
    from dlworkshop.lab.apps.pieces import (
        Number,
        heading,
        run_of_page,
        sentence,
        styled,
    )
    from dlworkshop.report.read import read_run


@app.cell
def _():
    heading(
        "Explore a run",
        "Curves and mistakes are those of the members that are selected in the table, "
        "or of all members if none is selected.",
    )


@app.cell
def _():
    _path, run = run_of_page()
    try:
        folder = read_run(_path)
    except UserError as _error:
        mo.stop(True, sentence(_error))
    styled(stills.told(run))
    return folder, run


@app.cell
def _(folder):
    rows = explore.member_rows(folder)
    table = mo.ui.table(
        rows,
        page_size=10,
        show_download=False,
        show_data_types=False,
        format_mapping=dict.fromkeys(explore.scores_of(rows), "{:.4g}"),
        label="Members",
    )
    table
    return (table,)


@app.cell
def _(folder):
    quantities = explore.quantities(folder)
    quantity = mo.ui.dropdown(quantities, quantities[0], label="Curves of")
    quantity
    return (quantity,)


@app.cell
def _(folder, quantity, table):
    try:
        members = explore.members_of(folder, [row["member"] for row in table.value])
        curves = explore.curves(folder, quantity.value, members)
    except UserError as _error:
        mo.stop(True, sentence(_error))
    styled(curves)
    return (members,)


@app.cell
def _(folder):
    try:
        names, first = explore.most_confused(folder)
    except UserError as _error:
        mo.stop(True, sentence(_error))
    true = mo.ui.dropdown(names, first[0], label="True class")
    said = mo.ui.dropdown(names, first[1], label="taken for")
    mo.vstack(
        [
            mo.md("## Predictions and mistakes"),
            mo.hstack([true, said], justify="start", wrap=True),
        ]
    )
    return names, said, true


@app.cell
def _(folder, members, run, said, true):
    try:
        pair = true.value, said.value
        mistakes = explore.mistaken(folder, members, *pair)
        images = digit.dataset_of(run).test.inputs
    except UserError as _error:
        mo.stop(True, sentence(_error))
    styled(stills.mistaken(images, mistakes, len(members), pair))


@app.cell
def _(folder, members, names):
    styled(stills.matrix(explore.confusion(folder, members), names))


@app.cell
def _(folder):
    member = Number(0, len(folder.members) - 1, 1, 0, label="of member")
    mo.vstack([mo.md("## First layer"), member])
    return (member,)


@app.cell
def _(folder, member, run):
    try:
        (number,) = explore.members_of(folder, [member.value])
        filters = explore.tiles(explore.filters(run, number))
    except UserError as _error:
        mo.stop(True, sentence(_error))
    styled(stills.strip(filters))


if __name__ == "__main__":
    app.run()
