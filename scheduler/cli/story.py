"""How a task's whole story is printed: plan and DAG, who proposed whom, verdicts with reasons, costs, the answer."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from scheduler.cli.output import console, harmless, seconds, short, state, table

#: what a judge had of a subtask's files (`db.states.Seen`) → how it is printed
SEEN = {
    "image": "saw the picture",
    "audio": "heard the recording",
    "transcript": "read a transcript",
    "caption": "read a caption",
    "text": "read the text of the picture",
    "unseen": "files unseen",
}


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
    if subtask["expect"]:
        console.print(Text(f"  expects {harmless(_expected(subtask['expect']))}"), soft_wrap=True)
    for failed in subtask["judges"]["failed"] if not verdict else ():
        console.print(Text(f"  {harmless(failed['judge'])} gave no verdict: {short(failed['error'], 200)}"))
    if subtask["note"]:
        console.print(Text(f"  {harmless(subtask['note'])}"), soft_wrap=True)
    rows = table(
        "", "model", "proposed by", "status", "time", "score", "output", wrap=("proposed by", "score", "output")
    )
    failed_checks = {one["model"]: one["failed"] for one in verdict.get("checks") or ()}
    for candidate in subtask["candidates"]:
        score = (verdict.get("scores") or {}).get(candidate["model"])
        said = candidate["output"] if candidate["status"] == "done" else (candidate["error"] or {}).get("message")
        rows.add_row(
            "★" if candidate["model"] == verdict.get("winner") else "",
            candidate["model"],
            _proposals(candidate["proposed_by"]),
            state(candidate["status"]),
            seconds(candidate["seconds"]),
            _score(score, failed_checks.get(candidate["model"])),
            short(said, 120),
        )
    console.print(rows)
    if verdict:
        how = ", ".join(filter(None, [verdict["method"], verdict["judge"], SEEN.get(verdict["seen"] or "")]))
        console.print(Text.assemble(("verdict ", "bold"), f"({how}) ", harmless(verdict["reason"])))
    if subtask["error"] is not None:
        console.print(
            Text.assemble(("error ", "bold red"), harmless(subtask["error"].get("message", ""))), soft_wrap=True
        )
    console.print()


def _score(score: float | None, failed: list[str] | None) -> str:
    """What the judge gave, and the checks that an answer failed: those keep it from winning."""
    given = "" if score is None else f"{score:.3f}"
    return " ".join(filter(None, [given, f"fails {', '.join(failed)}" if failed else ""]))


def _expected(expect: dict[str, Any]) -> str:
    """What an answer must hold, in a line: `json, length; names the river (2)`."""
    checks = ", ".join(short(str(check.get("check")), 20) for check in expect.get("checks") or ())
    components = ", ".join(
        f"{short(str(one.get('description')), 60)} ({one.get('weight', 1):g})" for one in expect.get("components") or ()
    )
    return "; ".join(filter(None, [checks, components]))


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
