"""What a reward model says of itself, for people: made of `card.json`."""

from __future__ import annotations

from typing import Any

BASELINES = {
    "longest": "the longer text",
    "random": "a coin",
    "surface": "surface features (length, form, first word), fitted on the same folds",
    "frozen_head": "a linear head on the frozen base, trained on the same folds",
}


def as_markdown(card: dict[str, Any]) -> str:
    """The card as a page."""
    lines = [f"# Reward model for {card['for']}", "", _about(card), ""]
    lines += ["## Data", "| file | sha256 | groups | texts | pairs | ties left out |", "|---|---|---|---|---|---|"]
    for one in card["data"]:
        counts = " | ".join(str(one[name]) for name in ("groups", "texts", "pairs", "ties"))
        lines.append(f"| {one['file']} | `{one['sha256'][:16]}` | {counts} |")
    lines += ["", f"Split: {card['split']}", "", "## Held-out figures", *_figures(card["figures"])]
    if halves := card.get("halves"):
        lines += ["", f"Alone, the tuned half has {halves['tuned']:.3f} and the counted half {halves['counted']:.3f}."]
    lines += ["", "## Calibration", *_calibration(card["calibration"])]
    lines += ["", "## Training", *(f"- {key}: {value}" for key, value in sorted(card["training"].items()))]
    lines += ["", "![loss](loss.svg) ![accuracy](accuracy.svg)", ""] if card["tuned"] else [""]
    return "\n".join(lines)


def _about(card: dict[str, Any]) -> str:
    members = card["training"]["members"]
    mean = f"; the mean of {members} such networks" if members > 1 else ""
    tuned = f"of which {card['tuned']:,} were tuned{mean}" if card["tuned"] else "none of which was tuned"
    return (
        f"Began as {card['base']} ({card['parameters']:,} numbers, {tuned}). "
        f"**It reads text only: it never saw an image**, and cannot know whether a text is true of one. "
        f"Made {card['date']}."
    )


def _figures(figures: dict[str, Any]) -> list[str]:
    low, high = figures["interval"]
    said = (
        f"Pairwise accuracy **{figures['pairwise_accuracy']:.3f}** [{low:.3f}, {high:.3f}] of {figures['pairs']} pairs "
        f"in {figures['groups']} groups; intervals are 95 %, by bootstrap over groups."
    )
    lines = [
        said,
        "",
        "| against | its accuracy | difference | interval |",
        "|---|---|---|---|",
    ]
    for name, one in figures["against"].items():
        low, high = one["interval"]
        lines.append(
            f"| {BASELINES[name]} | {one['accuracy']:.3f} | {one['difference']:+.3f} | [{low:+.3f}, {high:+.3f}] |"
        )
    if (kept := figures.get("kept_human_score")) is not None:
        said = (
            f"Between groups: Spearman correlation of mean scores {figures['spearman_between_images']:.3f}. The 30 % "
            f"of groups kept have a mean human score of {kept:.3f}; random {figures['kept_random']:.3f}, longest "
            f"{figures['kept_longest']:.3f}, oracle {figures['kept_oracle']:.3f}."
        )
        lines += ["", said]
    return lines


def _calibration(calibration: dict[str, Any]) -> list[str]:
    said = (
        f"Chances are sigma(a - b) of two scores, scaled on held-out groups. Brier score {calibration['brier']:.3f} "
        "(a coin: .250)."
    )
    lines = [
        said,
        "",
        "| pairs | sure on average | right |",
        "|---|---|---|",
    ]
    lines += [f"| {one['pairs']} | {one['sure']:.3f} | {one['right']:.3f} |" for one in calibration["reliability"]]
    return lines
