"""The pages of the lab in a browser: what a click does."""

import re
from urllib.parse import urlsplit

import pytest

from tests.lab.conftest import served

pytestmark = pytest.mark.slow
WAIT = 200_000  # ms, of the first page, for which programs are compiled


@pytest.fixture(scope="module")
def address(browser, digits_run):
    with served(digits_run.workdir) as found:
        yield found


@pytest.fixture
def go(browser, address):
    """go(page) -> the page, opened by who was given the address; no errors on it."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400})
    page, faults = context.new_page(), []
    page.set_default_timeout(WAIT)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(address)

    def opened(path):
        parts = urlsplit(address)
        page.goto(f"{parts.scheme}://{parts.netloc}/{path}")
        return page

    yield opened
    context.close()
    assert faults == []


def epoch_of(page) -> int:
    text = page.get_by_text(re.compile(r"^epoch \d+, \d+ members$")).inner_text()
    return int(text.split()[1].strip(","))


def loss_of(page) -> float:
    card = page.locator(".lab-card").last.inner_text()
    return float(re.search(r"loss ([\d.]+)", card)[1])


def test_a_click_trains_and_another_stops(go):
    page = go("playground/?seeds=2&rates=0.001,0.05&width=8")
    page.get_by_role("button", name="Step").click()
    page.get_by_text("epoch 1, 4 members").wait_for()
    before = loss_of(page)
    page.get_by_role("button", name="Run").click()
    page.wait_for_timeout(3000)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_timeout(1000)
    stopped = epoch_of(page)
    assert stopped >= 10 and loss_of(page) < 0.7 * before
    page.wait_for_timeout(500)
    assert epoch_of(page) == stopped
    page.get_by_role("button", name="Start over").click()
    page.get_by_text("epoch 0, 4 members").wait_for()


def test_the_address_says_what_was_chosen(go):
    page = go("playground/")
    page.get_by_text("epoch 0, 12 members").wait_for()
    rates = page.get_by_label("Learning rates")
    rates.fill("0.02, 0.2")
    rates.press("Enter")
    page.get_by_text("epoch 0, 8 members").wait_for()
    page.wait_for_url(re.compile("rates=0.02%2C0.2"))
    shared = urlsplit(page.url)
    other = go(f"playground/?{shared.query}")
    other.get_by_text("epoch 0, 8 members").wait_for()
    assert other.get_by_label("Learning rates").input_value() == "0.02, 0.2"
    exact = go("playground/?rates=0.123456789&seeds=2")
    exact.get_by_text("epoch 0, 2 members").wait_for()
    assert exact.get_by_label("Learning rates").input_value() == "0.123456789"


def test_number_fields_are_named_in_words_and_pages_are_dark_where_the_system_is(go):
    page = go("playground/?seeds=2&width=8")
    page.get_by_text("epoch 0, 6 members").wait_for()
    for name in ("Width", "Hidden layers", "Noise"):
        assert page.get_by_label(name, exact=True).get_attribute("aria-label") == name
    page.emulate_media(color_scheme="dark")
    page.wait_for_function("document.querySelector('.dark') !== null")


def test_an_address_that_says_nonsense_is_answered_with_a_sentence(go):
    page = go("playground/?depth=99")
    page.get_by_text("depth is '99': give a whole number from 0 to 6").wait_for()
    page.get_by_text("epoch 0, 12 members").wait_for()


def test_a_drawn_digit_is_read(go):
    page = go("digit/")
    box = page.get_by_label("Draw here").bounding_box()
    left, top = box["x"] + 190, box["y"] + 60
    turns = [(-90, 0), (-110, 60), (-90, 150), (-10, 160), (20, 80), (0, 0)]
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in turns:
        page.mouse.move(left + x, top + y, steps=5)
    page.mouse.up()
    page.get_by_text("The ensemble predicts 0").wait_for()
    assert page.get_by_alt_text("input of the network").is_visible()
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("nothing is drawn yet").wait_for()


def test_a_run_is_explored(go):
    page = go("explore/")
    page.get_by_text("Run of 4 x mlp on digits").wait_for()
    page.get_by_role("img", name="Loss (nats) of 4 of 4 members").wait_for()
    page.get_by_role("checkbox").nth(1).click()
    page.get_by_role("img", name="of 1 of 4 members").wait_for()


def test_a_broken_rule_is_named_and_a_whole_one_is_not(go):
    page = go("gradients/")
    page.get_by_text("custom_vjp of tanh").wait_for()
    assert page.get_by_text("WRONG", exact=True).is_visible()
    page.get_by_role("switch").click()
    page.get_by_text("right", exact=True).wait_for()
    assert not page.get_by_text("Culprit").is_visible()
