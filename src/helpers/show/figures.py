"""The ways to show charts: Altair theme, still images, notebooks, pages without a network, in light and dark."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import itertools
import struct
import textwrap
from importlib import metadata
from typing import Any, Literal, overload

import altair as alt
import vl_convert
from markupsafe import Markup

from helpers.base import files
from helpers.base.errors import DataError, RecordError
from helpers.show.colours import AXIS, DARK, DARK_HATCH, FAINT, INK, MUTED, PALETTE, RAMP
from helpers.show.markup import script_json, verbatim

FONT = "Inter, 'Helvetica Neue', Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
LEAST_PLOT = 220  # pixels between the axes of a chart, below which it scrolls instead
_made = itertools.count(1)

# Altair refuses more than 5,000 rows to keep notebooks small. Stills carry none, and a grid's loss curves have more.
alt.data_transformers.disable_max_rows()


@alt.theme.register("claimbook", enable=True)
def theme() -> alt.theme.ThemeConfig:
    """Return the theme of every chart: left-aligned titles with a line for N and interval, text of 12 px or more."""
    text = {"labelFontSize": 12, "titleFontSize": 12, "labelColor": INK, "titleColor": INK, "titleFontWeight": 500}
    title = {"anchor": "start", "frame": "bounds", "fontSize": 16, "fontWeight": 600, "color": INK, "offset": 14}
    subtitle = {"subtitleFontSize": 12.5, "subtitleColor": MUTED, "subtitlePadding": 5, "subtitleLineHeight": 16}
    axis = {
        "gridColor": FAINT,
        "domainColor": AXIS,
        "tickColor": AXIS,
        "labelLimit": 240,
        "titlePadding": 8,
        "labelFlush": False,
    }
    legend = {
        "orient": "top",
        "direction": "horizontal",
        "symbolSize": 90,
        "symbolStrokeWidth": 2,
        "titleOrient": "left",
    }
    config: Any = {
        "background": "white",
        "font": FONT,
        "padding": 10,
        "title": title | subtitle,
        "axis": axis | text,
        "legend": legend | text,
        "view": {"stroke": None, "continuousWidth": 460, "continuousHeight": 280},
        "concat": {"spacing": 20},
        "range": {"category": PALETTE, "heatmap": RAMP, "ramp": RAMP},
    }
    return {"config": config}


def title(text: str, subtitle: str, width: int) -> alt.TitleParams:
    """Wrap a title and its line for N and interval to about ``width`` pixels, because Vega wraps nothing by itself."""
    return alt.TitleParams(text=_wrapped(text, int(width / 8.2)), subtitle=_wrapped(subtitle, int(width / 6.3)))


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap into as few lines as fit ``width`` characters, of about equal length; numbers like 3e-4 stay whole."""
    wrap = functools.partial(textwrap.wrap, text, break_on_hyphens=False, break_long_words=False)
    lines = wrap(max(24, width))
    while width > 24 and len(wrap(width - 1)) == len(lines):
        width -= 1
    return wrap(max(24, width))


def alt_text(chart: alt.TopLevelMixin) -> str:
    """Return the alt text of a chart: its ``description``, which the functions of `plots` write from the data."""
    description = getattr(chart, "description", alt.Undefined)
    if not isinstance(description, str) or not description.strip():
        raise DataError("The chart has no alt text. Set one with chart.properties(description=...).")
    return " ".join(description.split())


@overload
def static(chart: alt.TopLevelMixin, kind: Literal["svg"] = "svg", scale: float = 2) -> str: ...
@overload
def static(chart: alt.TopLevelMixin, kind: Literal["png"], scale: float = 2) -> bytes: ...
def static(chart: alt.TopLevelMixin, kind: Literal["svg", "png"] = "svg", scale: float = 2) -> str | bytes:
    """Draw a still image with vl-convert, without browser or network: SVG text, or PNG at ``scale`` dots a unit."""
    if kind == "svg":
        return vl_convert.vegalite_to_svg(chart.to_dict(), allowed_base_urls=[])
    if kind == "png":
        return vl_convert.vegalite_to_png(chart.to_dict(), scale=scale, allowed_base_urls=[])
    raise DataError(f"A chart cannot be drawn as {kind!r}. Use 'svg' or 'png'.")


def enable_notebook() -> None:
    """Show charts in notebooks as PNG with alt text.

    Altair's default loads Vega from a CDN. JupyterLab drops SVG and scripts from notebooks that it does not trust, such
    as a freshly cloned one. A PNG shows everywhere: there, in a committed .ipynb and on a code host.
    """
    alt.renderers.register("claimbook", _notebook_bundle)
    alt.renderers.enable("claimbook")


def _notebook_bundle(spec: dict[str, Any], **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    image = vl_convert.vegalite_to_png(spec, scale=2, allowed_base_urls=[])
    width, height = struct.unpack(">II", image[16:24])  # the IHDR chunk of a PNG, which always comes first
    words = " ".join(spec.get("description", "A chart without a description.").split())
    return {"image/png": image, "text/plain": words}, {
        "image/png": {"width": width // 2, "height": height // 2, "alt": words}
    }


def chart_html(chart: alt.TopLevelMixin, alt: str | None = None, *, first: bool) -> Markup:
    """Return a chart as a figure for a page without network, as wide as the page allows.

    ``first`` is True for the first chart of a page, which carries the JavaScript (0.9 MB) for all. ``alt`` defaults
    to `alt_text`. The title moves from the drawing into the caption, where it wraps on a narrow screen and can be
    selected. Panels that do not fit side by side move under each other.
    """
    global _made
    if first:
        _made = itertools.count(1)
    words, spec = " ".join((alt or alt_text(chart)).split()), chart.to_dict()
    heading = spec.pop("title", "")
    heading = heading if isinstance(heading, dict) else {"text": heading}
    caption, note = (_one_line(heading.get(part, "")) for part in ("text", "subtitle"))
    if spec.keys() & {"layer", "mark"}:  # Vega-Lite stretches single charts only; panels reflow instead
        spec |= {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
    # The figure has alt text. For marks, Vega-Lite would write titles unescaped into an expression.
    spec["config"] = spec.get("config", {}) | {"mark": {"aria": False}}
    payload = script_json(spec)
    name = f"chart-{hashlib.sha256(payload.encode()).hexdigest()[:10]}-{next(_made)}"
    figure = Markup(
        '<figure class="claimbook-chart" role="img" aria-label="{}" style="margin:1.5em 0">\n'
        '<figcaption style="text-align:left;margin-bottom:.5em">\n<strong>{}</strong>\n'
        '<span class="claimbook-note">{}</span></figcaption>\n'
        '<div id="{}" style="width:100%;overflow-x:auto"></div>\n<noscript><p>{}</p></noscript></figure>\n'
        '<script>window.claimbookDraw("{}",{});</script>'
    ).format(words, verbatim(caption), verbatim(note), name, verbatim(words), name, payload)
    return styles() + bundle_script() + Markup("\n") + figure if first else figure


def styles() -> Markup:
    """Return the style element that turns the colours of charts where the page is dark, needed once a page.

    Vega writes colours as attributes, which a style sheet overrides. So a chart follows the theme without being drawn
    again.
    """
    pair = "light-dark({}, {})".format
    rules = [f".claimbook-note {{ display: block; color: {pair(MUTED, DARK[MUTED])}; }}"]
    rules.append(".claimbook-chart svg { background: none !important; }")  # Vega writes it as a style
    for name, colours in (("fill", DARK), ("stroke", DARK), ("stop-color", DARK_HATCH)):
        rules += [f'.claimbook-chart [{name}="{one}"] {{ {name}: {pair(one, colours[one])}; }}' for one in colours]
    return Markup('<style class="claimbook-styles">\n{}\n</style>\n').format(Markup("\n".join(rules)))  # noqa: S704 - colours of this package


@functools.cache
def bundle_script() -> Markup:
    """Return the script element with Vega, Vega-Lite, Vega-Embed and ``claimbookDraw(id, spec)``, needed once a page.

    The bundle is wrapped in a function whose parameters hide ``define``, ``require``, ``module`` and ``exports``, so
    that it neither registers with RequireJS as an AMD module nor leaves names in the page's scope.
    """
    draw = """window.claimbookDraw = async (name, spec) => {
  const box = document.getElementById(name);
  if (!box.clientWidth) {  // folded away: a chart as wide as its box waits until the box has a width
    new ResizeObserver((_, seen) => {
      if (box.clientWidth) { seen.disconnect(); claimbookDraw(name, spec); }
    }).observe(box);
    return;
  }
  const pitch = spec.usermeta && spec.usermeta.pitch;
  if (box.clientWidth < 480) spec.config.legend.columns = 2;
  if (pitch) spec.columns = Math.max(1, Math.min(spec.columns, Math.floor(box.clientWidth / pitch)));
  try {
    const draw = () => vegaEmbed(box, spec, {actions: false, renderer: "svg", ast: false});
    const drawn = await draw();
    if (spec.width === "container" && drawn.view.width() < LEAST) {  // its labels leave no room: let the box scroll
      spec.width = LEAST;
      delete spec.autosize;
      await draw();
    }
    box.dataset.drawn = "yes";
  } catch (error) { box.textContent = "This chart could not be drawn: " + error; }
};"""
    bundle = _bundle(draw.replace("LEAST", str(LEAST_PLOT)))
    if "</script" in bundle.lower():
        raise DataError("The JavaScript of vl-convert contains '</script'. Pin vl-convert-python to another version.")
    script = f"<script>(function (define, require, module, exports) {{\n{bundle}\n}})();</script>"
    return Markup(script)  # noqa: S704 - a package's JavaScript, checked above


def _bundle(snippet: str) -> str:
    """Return the JavaScript of Vega with a snippet that uses it, bundled once: it takes longer than most pages do."""
    name = files.sha256_json([snippet, metadata.version("vl-convert-python")])
    path = files.cache_root() / "vega" / f"{name}.js"
    with contextlib.suppress(OSError):
        return path.read_bytes().decode()  # as it was: newlines count in JavaScript
    bundle = vl_convert.javascript_bundle(snippet)
    with contextlib.suppress(RecordError):  # a home that is full or read-only keeps nothing
        files.write_text(path, bundle)
    return bundle


def _one_line(text: str | list[str]) -> str:
    return " ".join((text if isinstance(text, str) else " ".join(text)).split())
