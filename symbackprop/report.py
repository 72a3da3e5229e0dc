"""Verdicts as a web page for those who mark: one line an answer, credit by the equalities that hold, the wrong part marked."""

from __future__ import annotations

import html
from collections.abc import Sequence

from .check import Verdict
from .claim_files import Entry
from .notation import DISPLAYS
from .render import render


def credit(verdict: Verdict, points: float = 1.0) -> float:
    """The share of a claim's points that its right equalities earn."""
    if verdict.verdict in ("proved", "agrees"):
        return points
    return points * verdict.holds / verdict.equalities if verdict.equalities else 0.0


def report(entries: Sequence[Entry], verdicts: Sequence[Verdict], title: str) -> str:
    """A self-contained page about claims and their verdicts; everything in it that came from a file is escaped."""
    rows = [
        {
            "name": e.name,
            "line": e.line,
            "before": v.claim[: v.marked[0]] if v.marked else v.claim,
            "wrong": v.claim[v.marked[0] : v.marked[1]] if v.marked else "",
            "after": v.claim[v.marked[1] :] if v.marked else "",
            "verdict": v.verdict,
            "credit": f"{credit(v, e.points):g}",
            "points": f"{e.points:g}",
            "holds": f"{v.holds} of {v.equalities}" if v.equalities > 1 else "",
            "reason": v.reason or "",
            "declaration": v.declaration or "",
            "reading": v.reading or "",
            "correct": (v.correct or "") if v.verdict == "refuted" else "",
        }
        for e, v in zip(entries, verdicts, strict=True)
    ]
    total = sum(credit(v, e.points) for e, v in zip(entries, verdicts, strict=True))
    counts = {k: sum(v.verdict == k for v in verdicts) for k in ("proved", "agrees", "refuted", "not understood")}
    points = sum(e.points for e in entries)
    named = any(e.name for e in entries)
    return render(
        "report.html",
        {"title": title, "rows": rows, "total": f"{total:g}", "points": f"{points:g}", "counts": counts, "named": named},
    )


def verdict_bundle(verdict: Verdict) -> dict[str, str]:
    """What a notebook shows of a verdict."""
    claim = html.escape(verdict.claim)
    if verdict.marked is not None:
        a, b = verdict.marked
        parts = [html.escape(t) for t in (verdict.claim[:a], verdict.claim[a:b], verdict.claim[b:])]
        claim = f"{parts[0]}<mark>{parts[1]}</mark>{parts[2]}"
    lines = [f"<b>{verdict.verdict}</b>: <code>{claim}</code>"]
    lines += [html.escape(t) for t in (verdict.reason, verdict.declaration, verdict.reading) if t]
    if verdict.correct and verdict.verdict == "refuted":
        lines.append(f"correct: <code>{html.escape(verdict.correct)}</code>")
    return {"text/html": "<br>".join(lines), "text/plain": str(verdict)}


DISPLAYS[Verdict] = verdict_bundle
