"""Explore a run: its members, their curves and mistakes, and what they look for."""

import marimo

app = marimo.App(app_title="Explore a run", width="medium")

with app.setup:
    import marimo as mo

    from dlworkshop.errors import UserError
    from dlworkshop.lab import digit, explore, stills
    from dlworkshop.lab.apps.pieces import heading, run_of_page, sentence, styled
    from dlworkshop.report.read import read_run


@app.cell
def _():
    heading("Explore a run", "Choose members in the table: all below is about those.")


@app.cell
def _():
    run = run_of_page()
    folder = read_run(run.workdir)
    mo.plain_text(repr(run))
    return folder, run


@app.cell
def _(folder):
    table = mo.ui.table(
        explore.member_rows(folder),
        page_size=10,
        show_download=False,
        label="Members",
    )
    table
    return (table,)


@app.cell
def _(folder, table):
    members = explore.members_of(folder, [row["member"] for row in table.value])
    quantity = mo.ui.dropdown(
        explore.quantities(folder), explore.quantities(folder)[0], label="Curve of"
    )
    quantity
    return members, quantity


@app.cell
def _(folder, members, quantity):
    try:
        curve = styled(explore.curves(folder, quantity.value, members))
    except UserError as error:
        curve = sentence(error)
    curve


@app.cell
def _(folder):
    names = [] if folder.predictions is None else map(str, folder.predictions.classes)
    names = list(names)
    mo.stop(not names, mo.md("The run keeps no predictions of classes."))
    true = mo.ui.dropdown(names, names[0], label="True class")
    said = mo.ui.dropdown(names, names[-1], label="taken for")
    mo.hstack([mo.md("## Mistakes"), true, said], wrap=True, justify="start", gap=1)
    return said, true


@app.cell
def _(folder, members, run, said, true):
    try:
        pairs = explore.mistaken(folder, members, true.value, said.value)
        images = digit.dataset_of(run).test.inputs
        pair = true.value, said.value
        shown = stills.mistaken(images, pairs, len(members), pair)
    except UserError as error:
        mo.stop(True, sentence(error))
    counts = stills.matrix(explore.confusion(folder, members), list(true.options))
    styled(counts, shown)


@app.cell
def _(folder):
    member = mo.ui.number(0, len(folder.members) - 1, 1, 0, label="Filters of member")
    member
    return (member,)


@app.cell
def _(member, run):
    try:
        found = explore.tiles(explore.filters(run, int(member.value)))
    except UserError as error:
        mo.stop(True, sentence(error))
    styled(stills.strip(found))


if __name__ == "__main__":
    app.run()
