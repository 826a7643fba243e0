"""What must not be missed of a net's accuracy: that it fell, that a training was in vain, that it answers with NaN."""

from html import escape
from math import isfinite

from convsmith.optimize import TEACHER, Evaluated
from convsmith.report.numbers import percent
from convsmith.report.records import NetRecords, RunRecords
from convsmith.train import Probe


def falls(net: NetRecords) -> list[str]:
    """What happened to one net on its own way, each in a sentence; nothing where all is well."""
    evaluations = [evaluation for evaluation in net.evaluations if evaluation.when != TEACHER]
    if not evaluations:
        return []
    sentences = _fall(f"{evaluations[0].when} -> {evaluations[-1].label}", evaluations[0], evaluations[-1])
    if net.history and not evaluations[-1].kept:
        best = max(epoch.test_top1 for epoch in net.history)
        sentences.append(
            f"TRAINING DID NOT HELP: no epoch of {net.name} is better than its start (top-1 {percent(best)} at best, "
            f"{percent(evaluations[-1].top1)} before), so its weights are those of the start; give more images or "
            "--epochs, or another --lr."
        )
    if not isfinite(evaluations[-1].loss):
        sentences.append(f"THE NET ANSWERS WITH NaN: the test loss of {net.name} is no number; give sound weights.")
    return sentences


def run_falls(run: RunRecords) -> list[str]:
    """What happened to the optimized net, beside the baseline and on its own way."""
    base, new = run.nets
    sentences = _fall(f"{base.name} -> {new.name}", base.final, new.final) if base.final and new.final else []
    return [*sentences, *falls(new)]


def alerts(told: list[str]) -> list[str]:
    """Such sentences as they stand on a page."""
    return [f'<p class="alert" role="alert">{escape(text)}</p>' for text in told]


def rate_line(found: Probe) -> str:
    """What a search for a learning rate came to."""
    losses = dict(found.tried)
    change = f"held-out loss {found.before:.4g} -> {losses[found.rate]:.4g}"
    return f"learning rate {found.rate:.2g}: found among {len(losses)} tried in short, {change}"


def _fall(what: str, before: Evaluated, after: Evaluated) -> list[str]:
    points = 100 * (after.top1 - before.top1)
    figures = f"top-1 {percent(before.top1)} -> {percent(after.top1)} ({points:+.2f} points)"
    return [f"ACCURACY FELL: {figures}, {what}."] if points < 0 else []
