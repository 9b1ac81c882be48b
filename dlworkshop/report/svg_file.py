"""Drawings as files of a run folder, which may come from an untrusted source."""

import re
from xml.etree import ElementTree

SVG, XLINK = "{http://www.w3.org/2000/svg}", "http://www.w3.org/1999/xlink"
NAMESPACES = f'xmlns="{SVG[1:-1]}" xmlns:xlink="{XLINK}" '


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Elements that a drawing in a run folder may contain, and prefixes of its links.
DRAWN = _words(
    "svg g path use defs clipPath rect image title desc text tspan line circle ellipse "
    "polygon polyline"
)
# Attributes that it may have: properties of style, geometry, and plain text.
LOOKS = _words(
    "clip-path clip-rule color display dominant-baseline fill fill-opacity fill-rule "
    "font font-family font-size font-stretch font-style font-variant font-weight "
    "image-rendering opacity pointer-events shape-rendering stroke stroke-dasharray "
    "stroke-dashoffset stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity "
    "stroke-width text-align text-anchor transform visibility white-space"
)
PLACES = _words(
    "clipPathUnits cx cy d dx dy height points preserveAspectRatio r rx ry version "
    "viewBox width x x1 x2 y y1 y2"
)
WORDS = _words(
    "aria-hidden aria-label aria-labelledby class data-frame data-series data-tip id "
    "role {http://www.w3.org/XML/1998/namespace}space"
)
FUNCTIONS = _words("matrix rgb rgba rotate scale skewx skewy translate url")
MOST_DRAWN = 1_000_000  # elements of all references together
INSIDE = "#", "data:image/png;base64,", "data:image/jpeg;base64,"


def written(svg: str) -> str:
    """An SVG element as a file of its own."""
    return svg.replace("<svg ", f"<svg {NAMESPACES}", 1)


def parsed(text: str) -> str:
    """The SVG element in a file written by `written`.

    The file may come from an untrusted source: it is parsed, checked and serialised
    again, so that it cannot make a page run or load anything.

    Raises:
        ValueError: if it is not SVG, or contains anything but a drawing.

    >>> parsed('<svg xmlns="http://www.w3.org/2000/svg"><script>1</script></svg>')
    Traceback (most recent call last):
    ValueError: it contains <script>, which is not allowed
    """
    if "<!" in re.sub("<!--.*?-->", "", text, flags=re.DOTALL):  # entities may grow
        raise ValueError("it contains a declaration, which is not allowed")
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"it is not SVG ({error})") from error
    for element in root.iter():
        name = element.tag.removeprefix(SVG)
        if name not in DRAWN:
            raise ValueError(f"it contains <{name}>, which is not allowed")
        for key, value in element.attrib.items():
            if not _is_harmless(key.removeprefix(f"{{{XLINK}}}"), value):
                raise ValueError(f"its attribute {key} may run or load something")
    _check_references(root)
    return _as_text(root)


def renamed(svg: str, prefix: str) -> str:
    """A drawing whose ids start with `prefix`: a page may have two of one name.

    >>> renamed('<svg><g id="a" /><use href="#a" fill="url(#a)" /></svg>', "2-")
    '<svg><g id="2-a" /><use href="#2-a" fill="url(#2-a)" /></svg>'
    """
    root = ElementTree.fromstring(f"<svg {NAMESPACES}{svg.removeprefix('<svg')}")
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                changed = prefix + value
            elif key == "aria-labelledby":
                changed = " ".join(prefix + name for name in value.split())
            elif key.endswith("href"):
                changed = re.sub("^#", f"#{prefix}", value)
            elif key in WORDS:
                continue
            else:
                changed = re.sub(r"(?i)url\(#", rf"\g<0>{prefix}", value)
            element.set(key, changed)
    return _as_text(root)


def _as_text(root: ElementTree.Element) -> str:
    """An element of a page, which needs no namespaces."""
    ElementTree.register_namespace("", SVG[1:-1])
    ElementTree.register_namespace("xlink", XLINK)
    made = ElementTree.tostring(root, encoding="unicode")
    return re.sub(r' xmlns(:xlink)?="[^"]*"', "", made)


def _is_harmless(key: str, value: str) -> bool:
    """Whether an attribute can neither run nor load anything, nor leave its drawing."""
    if key == "href":
        return value.startswith(INSIDE)
    if key == "style":
        names = {each.partition(":")[0].strip() for each in value.split(";")}
        if names - LOOKS - {""}:
            return False
    elif key not in LOOKS | PLACES | WORDS:
        return False
    loads = re.search(r"[\\@]|url\((?!#)", value, re.IGNORECASE)
    called = set(re.findall(r"([\w-]*)\(", value.lower()))
    return key in WORDS or not (loads or called - FUNCTIONS)


def _check_references(root: ElementTree.Element) -> None:
    """Reject references to parts with references: a browser would draw 2^n parts."""
    named: dict[str, list[ElementTree.Element]] = {}
    for element in root.iter():
        named.setdefault(element.get("id", ""), []).append(element)
    drawn = 0
    for name in (each for element in root.iter() for each in _references(element)):
        parts = [part for each in named.get(name, ()) for part in each.iter()]
        drawn += len(parts)
        if drawn > MOST_DRAWN or any(map(_references, parts)):
            raise ValueError(f"it draws #{name} too often")


def _references(element: ElementTree.Element) -> list[str]:
    """The ids that an element refers to."""
    found: list[str] = []
    for key, value in element.attrib.items():
        link = key.endswith("href") and value.startswith("#")
        found += [value[1:]] if link else re.findall(r"(?i)url\(#([^)]*)", value)
    return found
