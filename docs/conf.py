"""The site: `make docs` builds it from this folder, without a network."""

import re
import sys
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

project = "dlworkshop"
copyright = "the dlworkshop maintainers"
release = tomllib.loads((HERE.parent / "pyproject.toml").read_text())["project"][
    "version"
]
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
    "lesson_cards",
    "lesson_pages",
]
exclude_patterns = ["_extensions"]
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

# --- the reference: docstrings are plain text with `code` and doctests

default_role = "py:obj"  # a link where the name is documented, else code
add_module_names = False
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autosummary_generate = False
napoleon_numpy_docstring = False
maximum_signature_line_length = 80

# --- what it looks like

html_theme = "pydata_sphinx_theme"
html_title = f"dlworkshop {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_search_summary = False  # it fetches pages, which a browser refuses on disk
html_show_sourcelink = False
html_copy_source = False
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "dlworkshop"},
    "header_links_before_dropdown": 7,
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "show_toc_level": 2,
}


def escape(text: str) -> str:
    """Text as reStructuredText: `code` and doctests as they are, no other markup."""
    parts = re.split(r"(`[^`]*`|^ *>>> .*(?:\n.*\S.*)*)", text, flags=re.MULTILINE)
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"[*|\\]|_(?=\W|$)", r"\\\g<0>", parts[i])
    return "".join(parts)


def process_docstring(app, what, name, obj, options, lines: list[str]) -> None:
    """Escape a docstring before napoleon reads its sections."""
    lines[:] = escape("\n".join(lines)).split("\n")


def skip_member(app, what, name, obj, skip, options) -> bool | None:
    """Leave out what a NamedTuple says of its fields: the signature has them."""
    said = getattr(obj, "__doc__", None) or ""
    return True if said.startswith("Alias for field number") else None


def as_spans(signature: re.Match) -> str:
    """Parameters on lines of their own, which Sphinx writes as a list without terms."""
    text = re.sub("<d[ld]>", '<span class="sig-lines">', signature[0])
    return re.sub("</d[ld]>", "</span>", text)


def process_page(app, name, template, context, doctree) -> None:
    """Mend the signatures, so that a screen reader is not told of broken lists."""
    signatures = re.compile('<dt class="sig .*?</dt>', re.DOTALL)
    context["body"] = signatures.sub(as_spans, context.get("body", ""))


def setup(app) -> None:
    app.connect("html-page-context", process_page)
    app.connect("autodoc-process-docstring", process_docstring, priority=400)
    app.connect("autodoc-skip-member", skip_member)
