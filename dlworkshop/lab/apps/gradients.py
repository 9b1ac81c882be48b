# /// script
# [tool.marimo.display]
# theme = "system"
# ///
"""The page of the gradient check: break a derivative, and see the check find it."""

import marimo

app = marimo.App(app_title="Gradient check", width="medium", css_file="lab.css")

with app.setup:
    import inspect

    import marimo as mo

    from dlworkshop.errors import UserError
    from dlworkshop.lab import rules, stills
    from dlworkshop.lab.apps.pieces import heading, sentence, styled


@app.cell
def _():
    heading(
        "Gradient check",
        "Choose a function and the error of its derivative: `verify.check_gradients` "
        "compares the derivative with finite differences and names the line that "
        "causes the error. The smaller the error, the harder it is to detect.",
    )


@app.cell
def _():
    controls = mo.ui.dictionary(
        {
            "name": mo.ui.dropdown(
                list(rules.RULES), next(iter(rules.RULES)), label="Function"
            ),
            "broken": mo.ui.switch(True, label="Break it"),
            "power": mo.ui.slider(
                rules.LEAST,
                rules.LARGEST,
                1,
                -3,
                label="by ten to the power of",
                show_value=True,
                debounce=True,
            ),
            "scale": mo.ui.slider(
                -rules.FARTHEST,
                rules.FARTHEST,
                0.1,
                1.0,
                label="at x, times",
                show_value=True,
                debounce=True,
            ),
        }
    )
    mo.hstack(list(controls.elements.values()), wrap=True, justify="start", gap=1)
    return (controls,)


@app.cell
def _(controls):
    asked = controls.value
    try:
        power = asked["power"] if asked["broken"] else None
        report = rules.checked(asked["name"], power, asked["scale"])
    except UserError as _error:
        mo.stop(True, sentence(_error))
    styled(stills.verdict(report))
    return (asked,)


@app.cell
def _(asked):
    source = inspect.getsource(rules.RULES[asked["name"]])
    mo.accordion({"The function": mo.md(f"```python\n{source}```")})


if __name__ == "__main__":
    app.run()
