"""The sections of the page: tables and plots of the parts that are there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from scheduler.evaluation.report.parts import ATTACK, JUDGE, SELECTION
from scheduler.evaluation.report.plots import Curve, Dot, dots, reliability

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from markupsafe import Markup

Z = 1.96
ARMS = ("random", "longest", "consensus", "vote", "best_single", "best_single_hindsight", "chosen", "oracle")
DRAWN = ("random", "longest", "best_single", "chosen", "oracle")
TONES = {"chosen": "own", "oracle": "best"}
FEW = 30  # pairs: too few for a curve


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as they are shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A picture and what it shows."""

    title: str
    svg: Markup


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading with what stands under it. `square`: its plots are small."""

    id: str
    title: str
    text: str = ""
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = field(default=())
    square: bool = False


def sections_of(parts: Mapping[str, dict[str, Any]]) -> list[Section]:
    """Every section that has something to show."""
    kinds = {kind: _of_kind(parts, kind) for kind in (SELECTION, JUDGE, ATTACK)}
    found = [
        _selection(kinds[SELECTION]),
        _pairs(kinds[JUDGE]),
        _orders(kinds[JUDGE]),
        _cascade(kinds[SELECTION], kinds[JUDGE]),
        _attacks(kinds[ATTACK]),
        _calibration(kinds[JUDGE], kinds[SELECTION]),
    ]
    return [section for section in found if section.tables or section.plots]


def _of_kind(parts: Mapping[str, dict[str, Any]], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(judge with its model where one was named, figures) of every part of a kind."""
    found = []
    for part in parts.values():
        key = part["key"]
        if key["kind"] == kind:
            found.append((key["judge"] + (f" @ {key['model']}" if key["model"] else ""), part["figures"]))
    return found


# --- selection


def _selection(found: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    tables, plots = [], []
    for judge, figures in found:
        rows = [_selection_row(one) for one in figures["sets"]]
        if "pooled" in figures:
            pooled, blind = figures["pooled"], figures["pooled"].get("blind", {})
            filling = ("",) * len(ARMS)
            rows.append(
                (
                    "pooled",
                    str(pooled["support"]),
                    *filling,
                    shown(pooled, "recovered"),
                    shown(blind, "recovered"),
                    "",
                    "",
                )
            )
        columns = ("set", "rows", *(name.replace("_", " ") for name in ARMS), "recovered", "recovered, blind",
                   "against the best without a judge", "calls")  # fmt: skip
        tables.append(Table(title=judge, columns=columns, rows=tuple(rows)))
        plots += [
            Plot(title=f"{one['set']}, {judge}", svg=_arms_plot(one, f"{one['set']}, {judge}"))
            for one in figures["sets"]
            if judge.partition(" @ ")[0] == "jury" and one["support"]
        ]
    recovered = [
        Dot(label=judge, value=one["recovered"], interval=_pair(one["recovered_interval"]), tone="own")
        for judge, figures in found
        if (one := figures.get("pooled") or figures["sets"][0])["recovered"] is not None
    ]
    if recovered:
        title = "share of the gap recovered, all sets pooled"
        plots.insert(0, Plot(title=title, svg=dots(recovered, title, mark=0.0)))
    return Section(
        id="selection",
        title="Choosing among several models",
        text=(
            "Mean score of the answer that is chosen: at random, the longest, the one most like the others, the vote "
            "(closed answers), that of the model which was best on the rows learned from, and the judge's choice. The "
            "oracle always takes the best. Recovered is the judge's share of the way from the best single model to the "
            "oracle."
        ),
        tables=tuple(tables),
        plots=tuple(plots),
    )


def _selection_row(one: dict[str, Any]) -> tuple[str, ...]:
    error = one["against_best_baseline_error"]
    name = one["set"] + (f" ({one['note']})" if one["note"] else "")
    return (
        name,
        covered(one),
        *(number(one.get(arm)) for arm in ARMS),
        shown(one, "recovered"),
        shown(one.get("blind", {}), "recovered"),
        f"{one['against_best_baseline']:+.3f} ± {error:.3f} ({one['best_baseline'].replace('_', ' ')})",
        _calls(one),
    )


def _arms_plot(one: dict[str, Any], title: str) -> Markup:
    rows = [
        Dot(
            label=arm.replace("_", " "),
            value=one[arm],
            interval=(one[arm] - Z * one["arm_errors"][arm], one[arm] + Z * one["arm_errors"][arm]),
            tone=TONES.get(arm, "plain"),
        )
        for arm in DRAWN
    ]
    return dots(rows, title)


# --- pairs


def _pairs(found: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    columns = ("set", "judge", "pairs", "accuracy", "accuracy, blind", "decisive", "accuracy where decisive",
               "shorter is better", "longest", "unparseable", "Brier", "calls", "seconds")  # fmt: skip
    rows = [
        (
            one["set"], judge, covered(one), shown(one, "accuracy"), shown(one.get("blind", {}), "accuracy"),
            number(one["decisive"]), number(one["accuracy_decisive"]), shown(one, "accuracy_shorter_better"),
            number(one["longest"]), number(one["unparseable"]), number(one["brier"]), _calls(one),
            f"{one['seconds']:.0f}",
        )
        for judge, one in sorted(found, key=lambda each: each[1]["set"])
    ]  # fmt: skip
    plots = []
    for name in sorted({one["set"] for _, one in found}):
        own = [(judge, one) for judge, one in found if one["set"] == name and one["support"]]
        drawn = [
            Dot(label=judge, value=one["accuracy"], interval=_pair(one["accuracy_interval"]), tone="own")
            for judge, one in own
        ]
        if drawn:
            drawn.append(Dot(label="longest", value=own[0][1]["longest"]))
            plots.append(Plot(title=f"accuracy on {name}", svg=dots(drawn, f"accuracy on {name}", mark=0.5)))
    return Section(
        id="pairs",
        title="Preferring the better of two answers",
        text=(
            "Pairs that people, or a reference, did not find equal. A judge's tie counts one half; a judge that fails "
            "is wrong. Longest: how often the better answer is the longer one."
        ),
        tables=(Table(columns=columns, rows=tuple(rows)),) if rows else (),
        plots=tuple(plots),
    )


def _orders(found: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    asked = [(judge, one) for judge, one in found if one["order_consistency"] is not None]
    rows = [
        (
            one["set"], judge, str(one["support"]), number(one["order_consistency"]),
            number(one.get("accuracy_single_order")), shown(one, "both_orders_gain"),
        )
        for judge, one in asked
    ]  # fmt: skip
    drawn = [Dot(label=f"{judge}, {one['set'].removeprefix('pairs_')}"[:30], value=one["order_consistency"])
             for judge, one in asked]  # fmt: skip
    title = "share of pairs named alike in both orders"
    return Section(
        id="orders",
        title="Both orders",
        text=(
            "Consistency is read off the raw replies in each order; of a judge that keeps none, off its choice when "
            "the candidates change places. The gain is that of asking in both orders over the same model asked once."
        ),
        tables=(
            Table(columns=("set", "judge", "pairs", "consistency", "asked once", "gain of both"), rows=tuple(rows)),
        )
        if rows
        else (),
        plots=(Plot(title=title, svg=dots(drawn, title, mark=1.0)),) if drawn else (),
    )


# --- cascade


def _cascade(selections: Sequence[tuple[str, dict[str, Any]]], pairs: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    by_judge: dict[str, dict[str, dict[str, Any]]] = {}
    for judge, figures in selections:
        by_judge.setdefault(judge, {}).update({one["set"]: one for one in figures["sets"]})
    for judge, one in pairs:
        by_judge.setdefault(judge, {})[one["set"]] = one
    rows = []
    for judge, sets in by_judge.items():
        if not judge.startswith("cascade"):
            continue
        jury = by_judge.get(judge.replace("cascade", "jury", 1), {})
        for name, one in sets.items():
            if name in jury and one["support"]:
                rows.append(_saving(judge, one, jury[name]))
    columns = ("set", "judge", "rows", "its score", "the jury's", "difference", "rows it asked the model about",
               "its calls", "the jury's calls", "share of calls")  # fmt: skip
    return Section(
        id="cascade",
        title="What the cascade saves",
        text="The cascade asks its language model only where the cheap jurors are not sure.",
        tables=(Table(columns=columns, rows=tuple(rows)),) if rows else (),
    )


def _saving(judge: str, one: dict[str, Any], jury: dict[str, Any]) -> tuple[str, ...]:
    figure = "accuracy" if "accuracy" in one else "chosen"
    share = "" if not one["calls"] or not jury["calls"] else f"{one['calls'] / jury['calls']:.0%}"
    return (
        one["set"], judge, str(one["support"]), number(one[figure]), number(jury[figure]),
        f"{one[figure] - jury[figure]:+.3f}", f"{one['asked_model'] / one['support']:.0%}", _calls(one), _calls(jury),
        share,
    )  # fmt: skip


# --- attacks


def _attacks(found: Sequence[tuple[str, dict[str, Any]]]) -> Section:
    rows = [
        (
            judge, one["file"], str(one["attacks"]), str(one["hosts"]), str(one["support"]),
            shown(one, "attack_success"), number(one["found"]), number(one["found_clean"]),
            ", ".join(f"{each['attack']} {each['attack_success']:.0%}" for each in one["worst"][:3]),
        )
        for judge, one in found
    ]  # fmt: skip
    plots = []
    for name in sorted({one["file"] for _, one in found}):
        drawn = [
            Dot(label=judge, value=one["attack_success"], interval=_pair(one["attack_success_interval"]), tone="bad")
            for judge, one in found
            if one["file"] == name and one["attack_success"] is not None
        ]
        if drawn:
            title = f"attack success, {name}"
            plots.append(Plot(title=title, svg=dots(drawn, title, mark=0.05, low=0.0)))
    tables = [
        Table(
            columns=(
                "judge",
                "attacks",
                "of them",
                "hosts",
                "trials",
                "success",
                "something found",
                "in honest hosts",
                "worst",
            ),
            rows=tuple(rows),
        )
    ]
    families = [
        (judge, one["file"], family, str(own["attacks"]), shown(own, "attack_success"), number(own["found"]))
        for judge, one in found
        for family, own in one["families"].items()
    ]
    columns = ("judge", "attacks", "family", "of them", "success", "something found")
    tables.append(Table(title="By family", columns=columns, rows=tuple(families)))
    return Section(
        id="attacks",
        title="Hostile answers",
        text=(
            "Success: an answer that loses as it is, and wins with the attack. Intervals draw hosts and attacks anew. "
            "“plain” is the language model alone, which reads everything."
        ),
        tables=tuple(tables) if rows else (),
        plots=tuple(plots),
    )


# --- calibration


def _calibration(
    pairs: Sequence[tuple[str, dict[str, Any]]], selections: Sequence[tuple[str, dict[str, Any]]]
) -> Section:
    plots, rows = [], []
    curves = [
        (f"{judge}, {one['set']}", one["reliability"], one["brier"], one["support"])
        for judge, one in pairs
        if one["reliability"] and one["support"] >= FEW and judge.startswith("jury")
    ]
    cards = [
        (f"{judge}, {one['set']}", card["reliability"], card["brier"], card["pairs"])
        for judge, figures in selections
        for one in figures["sets"]
        if judge.startswith("jury") and (card := next(_cards(one), None)) is not None
    ]
    for title, found in (("pairs that are reported", curves), ("held-out groups of the fit, per set", cards)):
        for start in range(0, len(found), 3):
            svg = reliability(
                [Curve(label=name, points=_points(bins)) for name, bins, _, _ in found[start : start + 3]], title
            )
            plots.append(Plot(title=title, svg=svg))
        rows += [(title, name, str(count), number(brier)) for name, _, brier, count in found]
    return Section(
        id="calibration",
        title="How far a jury's confidence can be believed",
        text="How sure it was, and how often it was right; on the dashed line it is as good as its word.",
        tables=(Table(columns=("measured on", "judge and set", "pairs", "Brier"), rows=tuple(rows)),) if rows else (),
        plots=tuple(plots),
        square=True,
    )


def _cards(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for card in one["fitted"]:
        if "not_fitted" not in card:
            yield card.get("full") or card["cheap"]


def _points(bins: Sequence[dict[str, Any]]) -> tuple[tuple[float, float, int], ...]:
    return tuple((one["sure"], one["right"], one["pairs"]) for one in bins)


# --- cells


def number(value: float | None) -> str:
    """A figure as a cell."""
    return "" if value is None else f"{value:.3f}"


def shown(figures: Mapping[str, Any], name: str) -> str:
    """A figure with its interval as a cell."""
    interval = figures.get(f"{name}_interval")
    return number(figures.get(name)) + (f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else "")


def covered(one: Mapping[str, Any]) -> str:
    """How many rows, and of how many where time or a limit cut them."""
    return str(one["support"]) if one["support"] == one["rows"] else f"{one['support']} of {one['rows']}"


def _calls(one: Mapping[str, Any]) -> str:
    return "" if one["calls"] is None else str(one["calls"])


def _pair(interval: Sequence[float] | None) -> tuple[float, float] | None:
    return None if interval is None else (interval[0], interval[1])
