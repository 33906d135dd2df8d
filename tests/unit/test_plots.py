"""Where the marks of a plot stand, and what its SVG says."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from scheduler.api.pages.base import _ENVIRONMENT
from scheduler.api.pages.plots import Dot, Scale, Stage, dot_plot, funnel, histogram, scale_around

SVG = "{http://www.w3.org/2000/svg}"


def a_dot(name: str = "alpha", value: float = 0.5, reach: float = 0.25) -> Dot:
    return Dot(name=name, said=f"{value:+.2f}", value=value, low=value - reach, high=value + reach)


def drawn(macro: str, plot: object) -> ET.Element:
    """The picture as XML, which a browser would read from the page."""
    made = getattr(_ENVIRONMENT.get_template("plots.html.j2").module, macro)(plot, 'what "it" is')
    return ET.fromstring(str(made).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))  # noqa: S314


def test_values_stand_in_order_between_the_edges() -> None:
    scale = Scale(low=-1.0, high=1.0)
    assert [scale.at(value) for value in (-1.0, 0.0, 1.0)] == ["1.50%", "50.00%", "98.50%"]
    assert (scale.at(-9.0), scale.at(9.0)) == (scale.at(-1.0), scale.at(1.0))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0)),
        (-0.13, 0.11, (-0.1, -0.05, 0.0, 0.05, 0.1)),
        (-12.0, 3.0, (-10.0, -5.0, 0.0)),
        (0.0, 700.0, (0.0, 200.0, 400.0, 600.0)),
    ],
)
def test_an_axis_has_round_steps_within(low: float, high: float, ticks: tuple[float, ...]) -> None:
    assert Scale(low=low, high=high).ticks() == ticks


@pytest.mark.parametrize("values", [[], [0.0], [0.2, 0.2], [-3.0, -1.0], [1e-9], [1e6]])
def test_a_scale_has_the_centre_and_room_on_both_sides(values: list[float]) -> None:
    scale = scale_around(values)
    assert scale.low < 0 < scale.high
    assert all(scale.low <= value <= scale.high for value in values)
    assert 0.0 in scale.ticks()
    assert len(scale.ticks()) <= 9


def test_labels_at_the_edges_stay_within() -> None:
    scale = Scale(low=0.0, high=1.0)
    assert [scale.tick(value, "").anchor for value in (0.0, 0.03, 0.5, 0.97, 1.0)] == [
        "start", "start", "middle", "end", "end",
    ]  # fmt: skip


def test_a_dot_plot_has_a_row_per_dot_with_its_name_and_figure() -> None:
    plot = dot_plot([a_dot("alpha"), a_dot("beta", -0.5)], Scale(low=-1, high=1), {0.0: "0"}, origin=0.0)
    picture = drawn("dots", plot)
    dots = picture.findall(f".//{SVG}circle")
    assert [one.get("cx") for one in dots] == ["74.25%", "25.75%"]
    assert [(one.get("x1"), one.get("x2")) for one in picture.findall(f".//{SVG}line[@class='reach']")] == [
        ("62.12%", "86.38%"), ("13.62%", "37.88%"),
    ]  # fmt: skip
    assert [one.text for one in picture.findall(f".//{SVG}text")] == ["0", "alpha", "+0.50", "beta", "-0.50"]
    assert picture.get("aria-label") == 'what "it" is'
    assert picture.get("role") == "img"
    assert picture.find(f"{SVG}line[@class='origin']") is not None


def test_names_are_text_whatever_they_are() -> None:
    plot = dot_plot([a_dot("</svg><script>alert(1)</script>" * 3)], Scale(low=-1, high=1), {})
    picture = drawn("dots", plot)
    assert picture.find(f".//{SVG}script") is None
    name, title = picture.findtext(f".//{SVG}text[@class='name']"), picture.findtext(f".//{SVG}title")
    assert name is not None
    assert name.startswith("</svg><script>")
    assert len(name) <= 32
    assert title is not None
    assert title.count("alert(1)") == 3


def test_a_funnel_has_bars_as_shares_of_what_came_first() -> None:
    plot = funnel([Stage(name="first", came=4000, passed=3000), Stage(name="second", came=3000, passed=0)])
    picture = drawn("funnel", plot)
    assert [one.get("width") for one in picture.findall(f".//{SVG}rect[@class='all']")] == ["100.00%", "75.00%"]
    assert [one.get("width") for one in picture.findall(f".//{SVG}rect[@class='part']")] == ["75.00%", "0.00%"]
    assert picture.findtext(f".//{SVG}title") == "first: 4,000 came, 3,000 passed"


def test_a_funnel_of_nothing_is_empty() -> None:
    assert [(bar.came, bar.passed) for bar in funnel([Stage(name="first", came=0, passed=0)]).bars] == [
        ("0.00%", "0.00%")
    ]


def test_a_histogram_is_as_high_as_its_tallest_bin() -> None:
    plot = histogram([(0, 0), (10, 5), (5, 5)], -1.25, 2.0)
    assert [(one.high, one.kept_high) for one in plot.columns] == [(0.0, 0.0), (120.0, 60.0), (60.0, 60.0)]
    picture = drawn("histogram", plot)
    assert [one.text for one in picture.findall(f"{SVG}text")] == ["\N{MINUS SIGN}1.25", "2"]
    assert len(picture.findall(f".//{SVG}rect")) == 6
