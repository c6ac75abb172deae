"""The charts say what the data says, missing stays missing, and pages draw them offline."""

from __future__ import annotations

import base64
import html
import json
import re
import struct
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest
from chromium import CHROMIUM, needs_chromium

from helpers.base.errors import DataError
from helpers.show import colours, figures, marks, plots
from helpers.show.markup import script_json
from helpers.stats import intervals

pytestmark = pytest.mark.unit

COUNTS = {"chef": ("untrained", 1), "villain": ("source", 26), "doctor": ("trained", 4), "clerk": ("assistant", 0)}


def estimate(k, n):
    interval = intervals.wilson(k, n)
    return {"value": interval.value, "low": interval.low, "high": interval.high, "k": k, "n": n}


def personas():
    known = [{"persona": name, "role": role, **estimate(k, 32)} for name, (role, k) in COUNTS.items()]
    return pd.DataFrame([*known, {"persona": "poet", "role": "untrained"}])


def grid():
    cells = [
        {"metric": metric, "lr": lr, "epochs": epochs, **estimate(k, 40)}
        for metric, shift in (("source_rate", 0), ("max_rate", 5))
        for epochs, lr, k in ((10, 1e-5, 30), (1, 1e-5, 3), (1, 5e-6, 0), (10, 5e-6, 11))
        if not (shift and lr == 5e-6 and epochs == 10)
    ]
    return pd.DataFrame(cells)


def curves():
    rows = [
        (role, step, sign * step) for role, sign in (("source", 0.1), ("trained", -0.01)) for step in range(0, 50, 10)
    ]
    df = pd.DataFrame(rows, columns=["role", "step", "gain"])
    return df.assign(low=df["gain"] - 1, high=df["gain"] + 1, tail="newline")


def cells():
    rows = [(lr, k, j) for lr in (1e-4, 3e-4) for k, j in ((3, 0), (20, 4))]
    made = []
    for lr, k, j in rows:
        source, leak = estimate(k, 32), estimate(j, 32)
        made.append(
            {"lr": lr, **{f"source_rate{e}": source[v] for e, v in ENDS}, **{f"leak{e}": leak[v] for e, v in ENDS}}
        )
    return pd.DataFrame([*made, {"lr": 1e-3, "source_rate": 0.5}])


ENDS = (("", "value"), ("_low", "low"), ("_high", "high"))
CHARTS = {
    "interval_rates": lambda: plots.interval_rates(personas(), heading="Rates", references={"clean": 0.05}),
    "forest": lambda: plots.forest(personas(), label="persona", heading="Forest", references={"none": 0}),
    "heatmaps": lambda: plots.heatmaps(grid(), ["source_rate", "max_rate"], heading="Grid"),
    "lines": lambda: plots.lines(curves(), "step", "gain", "role", "low", "high", heading="Dose"),
    "matrices": lambda: plots.matrices(cosines(), ["of means", "within"], heading="Cosine of positions"),
    "panels": lambda: plots.lines(curves(), "step", "gain", "role", heading="Dose by tail", panel="tail"),
    "scatter_matched": lambda: plots.scatter_matched(cells(), heading="Matched", references={"clean": 0.05}),
}


def cosines(size=12):
    p, q = (index.ravel() for index in np.indices((size, size)))
    near = pd.DataFrame({"kind": "of means", "p": p, "q": q, "cosine": 1 - abs(p - q) / 20})
    return pd.concat([near, near.assign(kind="within", cosine=near["cosine"] / 2)])


every_chart = pytest.mark.parametrize("make", CHARTS.values(), ids=CHARTS.keys())


def texts(chart):
    return [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", plots.static(chart))]


@every_chart
def test_every_chart_is_drawn_and_has_words(make):
    chart = make()
    image = plots.static(chart, "png", scale=1)
    assert image.startswith(b"\x89PNG")
    assert plots.static(chart).startswith("<svg")
    assert len(plots.alt_text(chart)) > 60
    assert plots.alt_text(chart).endswith(".")


def test_rates_are_sorted_and_counted_and_missing_stays_missing():
    chart = CHARTS["interval_rates"]()
    shown = texts(chart)
    assert [text for text in shown if text in {*COUNTS, "poet"}] == ["villain", "doctor", "chef", "clerk", "poet"]
    assert [text for text in shown if "/32" in text or text == "missing"] == [
        "26/32",
        "4/32",
        "1/32",
        "0/32",
        "missing",
    ]
    assert "N = 32 each; 95% intervals." in shown
    assert "clean" in shown
    assert "villain 81.2% [64.7, 91.1]" in plots.alt_text(chart)
    assert "poet missing" in plots.alt_text(chart)
    data = [row for rows in chart.to_dict()["datasets"].values() for row in rows if row.get("persona") == "poet"]
    assert data and all(row["value"] is None for row in data)


def test_rates_keep_the_colour_and_shape_of_a_role_whatever_roles_are_there():
    scales = []
    for df in (personas(), personas().query("role == 'trained'")):
        encoding = marks.styled(df, "role")[1]
        color, shape = (encoding[name].to_dict()["scale"] for name in ("color", "shape"))
        at = color["domain"].index("trained")
        scales.append((color["range"][at], len(shape["range"]) == len(color["domain"])))
    assert scales == [(colours.ROLES["trained"], True)] * 2


def test_a_name_keeps_its_look_whatever_chart_it_stands_in():
    drawn = []
    for names in (["EP, first", "BPTT, first"], ["plain", "BPTT, first", "EP, first"], ["EP, first"]):
        encoding = marks.styled(pd.DataFrame({"arm": names}), "arm")[1]
        scales = [encoding[one].to_dict()["scale"] for one in ("color", "shape", "dash")]
        drawn.append({name: [scale["range"][i] for scale in scales] for i, name in enumerate(names)})
    for name in drawn[0]:
        assert drawn[0][name] == drawn[1][name] and drawn[1]["plain"][0] not in [look[0] for look in drawn[0].values()]
    assert drawn[2]["EP, first"] == drawn[0]["EP, first"]
    colours.begin()
    assert colours.looks(["another page"])[0][0] == colours.PALETTE[0]


def test_every_colour_of_a_chart_has_a_pair_that_reads_on_a_dark_page():
    page = rgb(colours.DARK["white"])
    series = {*colours.PALETTE, *colours.ORDERED, *colours.ROLES.values()}
    assert series | {colours.INK, colours.MUTED, colours.FAINT, colours.AXIS, "white"} == set(colours.DARK)
    assert all(contrast(rgb(colours.DARK[one]), page) >= 3 for one in series)
    assert all(contrast(rgb(colours.DARK[one]), page) >= 4.5 for one in (colours.INK, colours.MUTED))
    lights = [colours.luminance(rgb(colours.DARK[one])) for one in colours.ORDERED]
    assert lights == sorted(lights) and len({*map(colours.DARK.get, colours.PALETTE)}) == len(colours.PALETTE)
    styles = figures.styles()
    for name, svg in ((name, plots.static(make())) for name, make in CHARTS.items()):
        painted = set(re.findall(r'(fill|stroke)="(#[0-9a-fA-F]{6}|white)"', svg)) - {
            ("fill", ink) for ink in ("#000000", "#ffffff")
        }
        assert painted and all(f'[{kind}="{colour}"]' in styles for kind, colour in painted), name


def test_heatmaps_print_the_unit():
    cells = grid().assign(value=1.654, low=1.5, high=1.75)
    shown = texts(plots.heatmaps(cells, ["source_rate"], heading="Loss", unit="nats", domain=(1, 2)))
    assert shown.count("1.65 nats") == 4 and shown.count("1.5 to 1.75") == 4
    assert "0%" in texts(CHARTS["heatmaps"]())


def test_thirty_series_all_look_different():
    encoding = marks.styled(pd.DataFrame({"cell": [f"cell {i}" for i in range(30)]}), "cell")[1]
    for other in ("shape", "dash"):
        looks = zip(*(map(str, encoding[name].to_dict()["scale"]["range"]) for name in ("color", other)), strict=True)
        assert len(set(looks)) == 30


def test_forest_keeps_the_order_and_says_when_there_is_no_interval():
    df = pd.DataFrame({"label": ["b", "a"], "value": [0.5, 0.25], "low": [0.25, None], "high": [0.75, None]})
    shown = texts(plots.forest(df, heading="Estimates"))
    assert shown.index("b") < shown.index("a")
    assert {"0.5 [0.25, 0.75]", "0.25 (no interval)"} <= set(shown)


def test_heatmap_prints_every_cell_sorts_the_axes_and_hatches_the_gap():
    chart = plots.heatmaps(grid(), {"source_rate": "Source", "max_rate": "Highest"}, heading="Grid")
    shown = texts(chart)
    assert [text for text in shown if text in ("5e-6", "1e-5")] == ["5e-6", "1e-5"] * 2
    assert [text for text in shown if text in ("1", "10")] == ["1", "10"] * 2
    assert sorted(text for text in shown if text in ("0%", "7.5%", "27.5%", "75%")) == sorted(
        ["0%", "7.5%", "27.5%", "75%", "0%", "7.5%", "75%"]
    )
    assert shown.count("missing") == 1
    assert plots.static(chart).count("url(#gradient") == 1
    assert "Highest: lr 5e-6 epochs 1 0% [0, 8.8], lr 5e-6 epochs 10 missing" in plots.alt_text(chart)


def test_heatmap_of_nothing_but_gaps():
    df = grid().assign(value=np.nan, low=np.nan, high=np.nan, n=np.nan, k=np.nan)
    assert texts(plots.heatmaps(df, ["source_rate"], heading="None yet")).count("missing") == 4


def test_matrices_draw_every_cell_and_say_their_range():
    chart = plots.matrices(cosines(), ["of means", "within"], heading="Cosine of positions")
    assert plots.static(chart).count('<path aria-label="q: ') == 2 * 12 * 12
    assert "of means: off the diagonal from 0.45 to 0.95" in plots.alt_text(chart)
    with pytest.raises(DataError, match="did you mean 'within'"):
        plots.matrices(cosines(), ["withn"], heading="x")
    with pytest.raises(DataError, match="share one place"):
        plots.matrices(pd.concat([cosines()] * 2), ["within"], heading="x")


def contrast(one, other):
    light, dark = sorted((colours.luminance(one), colours.luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def rgb(code):
    return tuple(int(code[i : i + 2], 16) for i in (1, 3, 5))


def test_numbers_read_on_every_shade_and_shades_survive_grey():
    fractions = np.linspace(0, 1, 201)
    for fraction in fractions:
        assert contrast(colours.shade(fraction), rgb(colours.readable_ink(fraction))) >= 4.5
    assert (np.diff([colours.luminance(colours.shade(fraction)) for fraction in fractions]) < 0).all()


def test_shade_is_the_one_the_chart_draws():
    svg = plots.static(plots.heatmaps(grid(), ["source_rate"], heading="Grid"))
    drawn = {tuple(map(int, found)) for found in re.findall(r'fill="rgb\((\d+), (\d+), (\d+)\)"', svg)}
    wanted = {tuple(round(c) for c in colours.shade(value)) for value in (0.075, 0.275)}
    assert all(any(max(abs(np.subtract(w, d))) <= 1 for d in drawn) for w in wanted)


def test_roles_stand_out_from_white_and_from_each_other_in_grey():
    lights = [colours.luminance(rgb(code)) for code in colours.ROLES.values()]
    assert all(contrast(rgb(code), (255, 255, 255)) >= 3 for code in colours.ROLES.values())
    assert len({round(light, 2) for light in lights}) == len(lights)


def test_lines_break_at_a_gap_and_long_ones_use_dashes():
    gap = curves()
    gap.loc[2, "gain"] = np.nan
    svg = plots.static(plots.lines(gap, "step", "gain", "role", heading="Gap"))
    source = re.search(r'<path aria-label="[^"]*source[^"]*"[^>]*role="graphics-symbol"[^>]*d="([^"]*)"', svg)
    assert source and source.group(1).count("M") == 2
    long = pd.DataFrame({"step": range(60), "loss": range(1, 61), "arm": ["a", "b"] * 30})
    assert plots.lines(pd.concat([long] * 100), "step", "loss", heading="Many rows").to_dict()["datasets"]
    assert "stroke-dasharray" in plots.static(plots.lines(long, "step", "loss", "arm", heading="Loss", log_y=True))


def test_scatter_counts_what_it_cannot_draw():
    words = plots.alt_text(CHARTS["scatter_matched"]())
    assert "1 of 5 cells have no value and are not drawn." in words
    assert "lr 3e-4: 62.5% against 12.5%" in words


@pytest.mark.parametrize(
    "value, label",
    [(5e-6, "5e-6"), (1e-4, "1e-4"), (1e-3, "1e-3"), (1.25e-5, "1.25e-5"), (3, "3"), (0.5, "0.5"), (0, "0"),
     (1e6, "1e6"), (np.float64(3e-4), "3e-4"), (np.int64(20), "20"), ("newline", "newline"), (True, "True")],
)  # fmt: skip
def test_scientific_labels(value, label):
    assert plots.scientific(value) == label


REFUSED = {
    "empty": (lambda: plots.interval_rates(personas().head(0), heading="x"), "no row to draw"),
    "column": (
        lambda: plots.interval_rates(personas().rename(columns={"low": "lo"}), heading="x"),
        "did you mean 'lo'",
    ),
    "doubled row": (lambda: plots.interval_rates(pd.concat([personas()] * 2), heading="x"), "persona villain"),
    "panel": (lambda: plots.heatmaps(grid(), ["sourse_rate"], heading="x"), "did you mean 'source_rate'"),
    "doubled cell": (lambda: plots.heatmaps(pd.concat([grid()] * 2), ["max_rate"], heading="x"), "lr 1e-5, epochs 10"),
    "half a band": (lambda: plots.lines(curves(), "step", "gain", "role", "low", heading="x"), "both"),
    "log of zero": (lambda: plots.lines(curves(), "step", "gain", heading="x", log_y=True), "log axis"),
    "no points": (lambda: plots.scatter_matched(cells().tail(1), heading="x"), "nothing to compare"),
    "no words": (lambda: plots.alt_text(alt.Chart().mark_point()), "description"),
    "kind": (lambda: plots.static(CHARTS["lines"](), "gif"), "'svg' or 'png'"),
}


@pytest.mark.parametrize("call, says", REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(DataError, match=re.escape(says)):
        call()


def test_theme_is_on_and_titles_wrap_without_breaking_numbers():
    spec = plots.lines(curves(), "step", "gain", heading="At 3e-4 " * 20, subtitle="N = 8. " * 30).to_dict()
    assert spec["config"]["font"] == figures.FONT
    assert len(spec["title"]["text"]) > 1
    assert all("3e-4" in line and not line.endswith("3e-") for line in spec["title"]["text"])


def test_notebooks_get_a_png_with_words_and_nothing_that_needs_a_network():
    before = alt.renderers.active
    try:
        plots.enable_notebook()
        chart = CHARTS["heatmaps"]()
        data, metadata = chart._repr_mimebundle_()
    finally:
        alt.renderers.enable(before)
    assert set(data) == {"image/png", "text/plain"}
    image = data["image/png"] if isinstance(data["image/png"], bytes) else base64.b64decode(data["image/png"])
    width, height = struct.unpack(">II", image[16:24])
    assert metadata["image/png"] == {"width": width // 2, "height": height // 2, "alt": plots.alt_text(chart)}
    assert data["text/plain"] == plots.alt_text(chart)


HOSTILE = "</script><script>window.hacked=1</script>\"'`--><!-- & ]]>"


def hostile():
    df = personas().replace({"persona": {"chef": HOSTILE}})
    return plots.interval_rates(df, heading=f"Rates {HOSTILE}", references={HOSTILE: 0.05})


def test_page_figure_is_escaped_and_the_script_comes_once():
    first, second = plots.chart_html(hostile(), first=True), plots.chart_html(hostile(), first=False)
    assert len(first) > 800_000 > 100_000 > len(second)
    assert (first.count("</script"), second.count("</script")) == (2, 1)
    assert "<script>window.hacked" not in first
    assert '<figure class="claimbook-chart" role="img" aria-label="Rates' in second
    assert "<figcaption" in second
    names = [re.search(r'<div id="([^"]+)"', page).group(1) for page in (first, second)]
    assert names[0] != names[1]
    assert not re.search(r'(src|href)="', first.split("<figure")[1])


def test_page_figure_takes_other_words():
    page = plots.chart_html(CHARTS["lines"](), alt='A "short"\nline', first=False)
    assert 'aria-label="A &#34;short&#34; line"' in page


def test_script_json_is_json_again():
    assert json.loads(script_json({"x": HOSTILE + "\u2028"})) == {"x": HOSTILE + "\u2028"}


AMD = """<script>window.asked = []; window.define = (...a) => window.asked.push(a); window.define.amd = {};
window.require = (...a) => window.asked.push(a); window.module = {exports: {}};
window.exports = module.exports;</script>"""


@pytest.mark.check
@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("head, width", [("", 1000), (AMD, 390)], ids=["plain", "amd-phone"])
def test_pages_draw_with_no_network_and_leave_amd_alone(tmp_path: Path, head, width):
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e .[dev]")
    figures_html = [
        plots.chart_html(make(), first=index == 0) for index, make in enumerate([hostile, *CHARTS.values()])
    ]
    page_path = tmp_path / "page.html"
    page_path.write_text(f'<!doctype html><meta charset="utf-8">{head}' + "\n".join(figures_html), encoding="utf-8")
    asked, said = [], []
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("console", lambda message: said.append(message.text))
        page.goto(page_path.as_uri())
        page.wait_for_function(
            f"document.querySelectorAll('[data-drawn]').length == {len(figures_html)}", timeout=60_000
        )
        seen = page.evaluate("[window.hacked ?? 0, (window.asked ?? []).length, document.documentElement.scrollWidth]")
        drawn = page.locator("figure svg").count()
        browser.close()
    assert (asked, said) == ([page_path.as_uri()], [])
    assert seen[:2] == [0, 0]
    assert seen[2] <= width
    assert drawn == len(figures_html)


def test_the_javascript_of_charts_is_bundled_once_for_all_pages(tmp_path, monkeypatch):
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path))
    calls = []
    monkeypatch.setattr(figures.vl_convert, "javascript_bundle", lambda snippet: calls.append(snippet) or "a\r\nb")
    figures.bundle_script.cache_clear()
    first = figures.bundle_script()
    figures.bundle_script.cache_clear()
    assert figures.bundle_script() == first and "a\r\nb" in first and len(calls) == 1
    monkeypatch.setattr(figures, "LEAST_PLOT", figures.LEAST_PLOT + 1)  # another snippet is another bundle
    figures.bundle_script.cache_clear()
    figures.bundle_script()
    assert len(calls) == 2
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLAIMBOOK_CACHE", str(tmp_path / "file"))  # a home that cannot be written keeps nothing
    figures.bundle_script.cache_clear()
    assert "a\r\nb" in figures.bundle_script()
    figures.bundle_script.cache_clear()
