"""The page in a real browser: paths, forms and themes, small screens, contrast, and that nothing in a name can run."""

import os
from pathlib import Path

import pytest

from symbackprop import derive, explain
from symbackprop.declare import bundled

CHROMIUM = Path("/usr/bin/chromium")
NETWORKS = ("two_hidden_one_output", "xor", "digits", "lenet", "char_lstm", "tiny_transformer", "variational_autoencoder")
HOSTILE = '</title><script>window.ran = 1</script><img src=x onerror="window.ran = 1"> & \\ _ % \' " {{ 7*7 }}'


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        assert "CI" not in os.environ, "CI must have a browser"
        pytest.skip("no Chromium here: the page is not opened")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Open a page from a file, at a width and in a colour scheme; every complaint and every request is kept."""
    contexts = []

    def go(html, width=1100, scheme="light"):
        path = tmp_path / f"page_{len(contexts)}.html"
        path.write_text(html, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce")
        contexts.append(context)
        opened = context.new_page()
        opened.complaints = []
        opened.on("console", lambda m: opened.complaints.append(m.text))
        opened.on("pageerror", lambda e: opened.complaints.append(str(e)))
        opened.on("dialog", lambda d: opened.complaints.append(d.message))
        opened.on("request", lambda r: None if r.url.startswith(("file:", "data:")) else opened.complaints.append(r.url))
        opened.goto(path.as_uri())
        return opened

    yield go
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def pages():
    made = {}

    def page(name):
        if name not in made:
            made[name] = explain(derive(name), "html")
        return made[name]

    return page


@pytest.mark.parametrize("name", NETWORKS)
def test_page_in_a_browser(name, visit, pages):
    html = pages(name)
    assert len(html.encode()) < 400_000
    page = visit(html)
    # every path from a weight
    options = page.locator("#weight option").all_inner_texts()
    assert len(options) > 1
    page.select_option("#weight", index=1)
    assert page.locator(".edge.lit").count() >= 1
    assert page.locator(".node.lit").count() >= 2
    assert page.locator(".path.chosen").is_visible()
    # forms
    for form in ("index", "matrix", "numpy"):
        page.click(f"button[data-form={form}]")
        assert page.locator(f".f-{form}").first.is_visible()
        assert page.locator(f".forms > div:not(.f-{form}):visible").count() == 0
    page.click("button[data-form=all]")
    # themes
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.click("#theme")
    assert page.evaluate(paper) != light
    # steps
    page.click("#all")
    assert page.locator("details:not([open])").count() == 0
    assert page.complaints == []


@pytest.mark.parametrize("name", NETWORKS)
def test_page_on_a_phone(name, visit, pages):
    page = visit(pages(name), width=390)
    page.click("#all")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ("two_hidden_one_output", "lenet", "char_lstm"))
def test_accessibility(name, scheme, visit, pages):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    page = visit(pages(name), scheme=scheme)
    page.click("#all")
    found = axe.Axe().run(page).response["violations"]
    assert found == [], [(v["id"], v["nodes"][0]["html"][:200]) for v in found]


def test_a_weight_is_chosen_by_the_keyboard(visit, pages):
    page = visit(pages("two_hidden_one_output"))
    page.locator('.edge[role="button"]').first.focus()
    page.keyboard.press("Enter")
    assert page.locator(".path.chosen").count() == 1
    assert page.locator("#weight").input_value() != ""


def test_names_cannot_run_or_break_the_page(visit):
    network = {"network": "2 -> dense(2, tanh) -> dense(1) -> squared_error", "name": HOSTILE[:80]}
    page = visit(explain(derive(network), "html"))
    assert page.evaluate("window.ran") is None
    assert "window.ran" in page.locator("h1").inner_text().replace("\u200b", "")
    assert page.complaints == []


@pytest.mark.parametrize(
    "chain",
    [
        "T x 3 -> lstm(4, mask=true) -> last -> dense(2) -> squared_error",
        "T x 3 -> conv(4, 3, relu, padding=1) -> dropout(0.2) -> batch_norm -> global_avgpool -> dense(2) -> squared_error",
        "4 -> concat(dense(3, relu)) -> residual(dense(7, tanh)) -> dense(2) -> squared_error",
        "5 -> dense(12) -> reshape(2x3x2) -> conv(2, 2x1) -> flatten -> dense(2) -> squared_error",
    ],
)
def test_every_kind_of_network_has_a_page(chain, visit):
    page = visit(explain(derive(chain), "html"))
    assert page.locator(".node").count() > 3
    assert "differs" not in page.locator("main").inner_text()
    assert page.complaints == []


def test_page_in_another_notation(visit):
    page = visit(explain(derive("xor"), "html", notation="batch=columns, layer=[l], derivative=∇, prediction=ŷ"))
    assert "in matrices examples are columns" in page.locator("main").inner_text()
    assert page.locator("text=∇").count() > 0
    assert page.complaints == []


def test_numbers_given_are_the_numbers_shown(visit):
    values = {
        "w_11": 0.15, "w_12": 0.25, "w_21": 0.2, "w_22": 0.3, "v_1": 0.4, "v_2": 0.5,
        "x1": [0.05], "x2": [0.1], "y": [0.01],
    }  # fmt: skip
    page = visit(explain(derive("two_hidden_one_output"), "html", values=values))
    text = page.locator("main").inner_text()
    # by hand: z_A1 = 0.15*0.05 + 0.2*0.1 = 0.0275, its logistic value 0.50687
    assert "0.0275" in text
    assert "0.5069" in text
    assert "differs" not in text
    assert text.count("agrees") == 6


def test_every_bundled_network_has_a_page_without_a_formula_that_cannot_be_shown():
    for name in bundled():
        html = explain(derive(name), "html")
        assert html.count("<math") > 20
        assert "\\frac" not in html
