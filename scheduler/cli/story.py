"""How a task's whole story is printed: plan and DAG, who proposed whom, verdicts with reasons, costs, the answer."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from scheduler.cli.output import console, harmless, seconds, short, state, table


def print_story(story: dict[str, Any]) -> None:
    """A task's whole story: request, candidates, verdict, answer."""
    console.print(
        Text.assemble(("task ", "bold"), story["id"], "  ", state(story["status"]), f"  from {short(story['source'])}")
    )
    if story["request"]:
        console.print(Text.assemble(("request ", "bold"), short(story["request"], 400)))
    for attachment in story["attachments"]:
        console.print(Text.assemble(("file ", "bold"), _attachment(attachment)))
    _print_plan(story)
    for subtask in story["subtasks"]:
        _print_subtask(subtask)
    _print_costs(story)
    if story["answer"] is not None:
        console.print(Text("answer", style="bold"))
        console.print(Text(harmless(story["answer"])), soft_wrap=True)
    if story["error"] is not None:
        console.print(Text.assemble(("error ", "bold red"), harmless(story["error"]["message"])), soft_wrap=True)


def _print_costs(story: dict[str, Any]) -> None:
    """What the task took: calls of models, their seconds and tokens, the judges', the answer's."""
    candidates = [candidate for subtask in story["subtasks"] for candidate in subtask["candidates"]]
    ran = [candidate for candidate in candidates if candidate["seconds"] is not None and not candidate["cached"]]
    if not candidates:
        return
    tokens = sum(int((candidate["usage"] or {}).get("output_tokens") or 0) for candidate in candidates)
    judged = sum((subtask["verdict"] or {}).get("seconds") or 0 for subtask in story["subtasks"])
    parts = [f"{len(ran)} model call(s), {seconds(sum(candidate['seconds'] for candidate in ran))}"]
    parts += [f"{tokens} tokens written"] if tokens else []
    parts += [f"judging {seconds(judged)}"] if judged else []
    integration = story["integration"] or {}
    if integration.get("method") == "none":
        parts.append(harmless(integration.get("reason", "")))
    elif integration:
        who = integration.get("model") or integration.get("integrator")
        parts.append(f"answer by {who}, {seconds(integration.get('seconds'))}")
    console.print(Text.assemble(("cost ", "bold"), "; ".join(parts)), soft_wrap=True)


def _print_plan(story: dict[str, Any]) -> None:
    """Who planned it and how; the DAG as text where there is more than one step."""
    plan = story["plan"] or {}
    if plan.get("planner") or plan.get("method"):
        how = ", ".join(str(plan[key]) for key in ("planner", "method", "model", "prompt_version") if plan.get(key))
        console.print(Text.assemble(("plan ", "bold"), f"({how}) ", harmless(plan.get("reason") or "")), soft_wrap=True)
    for repair in plan.get("repairs") or []:
        console.print(Text(f"  repaired: {harmless(repair)}"), soft_wrap=True)
    if plan.get("stopped"):
        console.print(Text(f"  stopped: {harmless(plan['stopped'])}"))
    if len(story["subtasks"]) > 1:
        for subtask in story["subtasks"]:
            reads = f" ← {', '.join(subtask['needs'])}" if subtask["needs"] else ""
            console.print(
                Text.assemble("  ", state(subtask["status"]), f"  {harmless(subtask['name'])}{harmless(reads)}"),
                soft_wrap=True,
            )


def _attachment(attachment: Any) -> str:
    """One line about an attachment; a row inserted with SQL may hold anything there."""
    if not isinstance(attachment, dict):
        return short(str(attachment))
    return f"{short(str(attachment.get('name') or 'unnamed'))}  {short(str(attachment.get('sha256')), 13)}"


def _print_subtask(subtask: dict[str, Any]) -> None:
    verdict = subtask["verdict"] or {}
    name = "" if subtask["name"] == subtask["capability"] else f"{harmless(subtask['name'])}  "
    flags = "  needs review" if subtask["needs_review"] else ""
    console.print(
        Text.assemble(
            ("\nsubtask ", "bold"), name, subtask["capability"], "  ", state(subtask["status"]), (flags, "yellow")
        )
    )
    if subtask["note"]:
        console.print(Text(f"  {harmless(subtask['note'])}"), soft_wrap=True)
    rows = table(
        "", "model", "proposed by", "status", "time", "score", "output", wrap=("proposed by", "score", "output")
    )
    for candidate in subtask["candidates"]:
        score = (verdict.get("scores") or {}).get(candidate["model"])
        said = candidate["output"] if candidate["status"] == "done" else (candidate["error"] or {}).get("message")
        rows.add_row(
            "★" if candidate["model"] == verdict.get("winner") else "",
            candidate["model"],
            _proposals(candidate["proposed_by"]),
            state(candidate["status"]),
            seconds(candidate["seconds"]),
            "" if score is None else f"{score:.3f}",
            Text(short(said, 120)),
        )
    console.print(rows)
    if verdict:
        console.print(
            Text.assemble(
                ("verdict ", "bold"), f"({verdict['method']}, {verdict['judge']}) ", harmless(verdict["reason"])
            )
        )
    if subtask["error"] is not None:
        console.print(
            Text.assemble(("error ", "bold red"), harmless(subtask["error"].get("message", ""))), soft_wrap=True
        )
    console.print()


def _proposals(proposed_by: list[dict[str, Any]]) -> str:
    """Who proposed a model, and at which rank: `downloads 1, likes 2`."""
    return short(", ".join(f"{said.get('selector')} {said.get('rank', 0) + 1}" for said in proposed_by), 60)


def mermaid(story: dict[str, Any]) -> str:
    """The task's DAG as a Mermaid flowchart: each step with its capability and winner."""
    numbers = {subtask["name"]: f"s{number}" for number, subtask in enumerate(story["subtasks"])}
    lines = ["flowchart TD"]
    for subtask in story["subtasks"]:
        winner = (subtask["verdict"] or {}).get("winner") or subtask["status"]
        label = _label(f"{subtask['name']}: {subtask['capability']} ({winner})")
        lines.append(f'    {numbers[subtask["name"]]}["{label}"]')
    lines += [
        f"    {numbers[before]} --> {numbers[subtask['name']]}"
        for subtask in story["subtasks"]
        for before in subtask["needs"]
    ]
    return "\n".join(lines)


def _label(text: str) -> str:
    """Text that cannot end a Mermaid label."""
    return short(text, 120).replace('"', "#quot;")
