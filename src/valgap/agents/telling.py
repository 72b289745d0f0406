"""What valgap's JSON objects say, as answers for an agent. Pure: no file is read here, nothing is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from valgap.agents.answer import Answer
from valgap.report.words import evidence_line
from valgap.types import Evidence

LIKELY = 0.5  # from here on a finding is a suspicion, below it a hint
SHOWN, EVIDENCE_EACH, SUBJECTS = 6, 3, 3
PROVE_S, MOST_S = 600, 3600
HONEST = "Mend the cause in the program; do not tune settings against this validation set, and do not hide a warning."
Json = Mapping[str, Any]


def of_diagnosis(body: Json, run: str, *, proved: bool = False, output: str = "", head: str = "") -> Answer:
    """The answer of `run`, `diagnose` and `prove`. ``head`` stands before the verdict."""
    sure, hints = _sorted(body)
    verdict = head + _verdict(body, sure)
    evidence = [_reached(body), *_account(body)]
    for finding in sure[:SHOWN]:
        evidence += _finding(finding)
    if len(sure) > SHOWN:
        evidence.append(f"{len(sure) - SHOWN} more suspected: {', '.join(f['code'] for f in sure[SHOWN:])}")
    if hints:
        evidence.append("weak hints, nothing to act on: " + ", ".join(f"{f['code']} {f['name']}" for f in hints[:8]))
    evidence += _limits(body)
    return Answer(verdict, [e for e in evidence if e], _next(body, sure, run, proved), output)


def of_preflight(body: Json) -> Answer:
    """The answer of `preflight`."""
    one = body["preflight"]
    sure, hints = _sorted(body)
    end = one["script"]
    failed = end["ended_by"] == "failure"
    if failed:
        where = f" at {end['file']}:{end['line']}" if end["file"] else ""
        verdict = f"the script fails{where}: {end['error'] or 'no reason was given'}"
    elif one["unjudged"]:
        verdict = f"nothing can be judged: {one['unjudged']}"
    else:
        verdict = _verdict(body, sure)
    evidence = [f"line that fails: {end['text']}" if failed and end["text"] else ""]
    if failed and end["after_cut"]:
        evidence.append("its loaders had been cut short by then; what needs all images may fail by that alone")
    for place in one["source"]:
        seen = "" if place["confirmed"] else " (read in the source, not seen to run)"
        evidence.append(f"{place['file']}:{place['line']} {place['code'] or place['cause']}: {place['told']}{seen}")
        evidence += _edited(place["text"], place["remedy"])
    for finding in sure[:SHOWN]:
        evidence += _finding(finding)
    if hints:
        evidence.append("weak hints, nothing to act on: " + ", ".join(f"{f['code']} {f['name']}" for f in hints[:8]))
    evidence += _projected(one["projected"])
    untold = [u["name"] for u in one["untold"]]
    if untold:
        evidence.append(f"not told by so short a run: {', '.join(untold)}")
    evidence.append(f"recorded in {body['run']}")
    if failed:
        steps = ["mend that line, then call preflight again"]
    elif one["unjudged"]:
        steps = ["give a longer budget_s, or check that the script iterates a DataLoader, calls a model and validates"]
    elif sure:
        steps = [
            f"explain(code='{sure[0]['code']}') says what it means and what looks alike",
            "mend it in the script and call preflight again; or run(script=...) in full, then prove and fix that record",
            HONEST,
        ]
    else:
        steps = ["run(script=...) trains it in full, recorded; its answer says what so short a run cannot"]
    return Answer(verdict, [e for e in evidence if e], steps, end["tail"] if failed else "")


def of_comparison(body: Json, good: str, bad: str) -> Answer:
    """The answer of `compare`."""
    verdict = {"equal": "the two runs are equal", "rounding": "equal but for rounding", "chance": "the same but for chance",
               "parted": "the two runs part", "unknown": "not known"}[body["verdict"]]  # fmt: skip
    evidence = [f"{r['run']}: validation accuracy {_accuracy(r['val'])}" for r in body["runs"]]
    gain = body["gain_points"]
    if gain:
        evidence.append(
            f"second minus first: {_effect(gain)} points on {gain['samples']} common images, p = {gain['p_value']:.2g}"
        )
    elif body["why_no_gain"]:
        evidence.append(f"no paired comparison: {body['why_no_gain']}")
    for proof in body["proofs"]:
        told = f": {_effect(proof['gain'])} points in the second program" if proof["gain"] else ""
        evidence.append(f"re-runs: {proof['name']} {proof['verdict']}{told}; {proof['text']}")
    for one in body["departures"]:
        follows = " (follows from what comes before)" if one["follows"] else ""
        where = f", {one['where']}" if one["where"] else ""
        evidence.append(f"{one['stage']}{where}: {one['text']}{follows}")
        evidence += [f"  {text}" for text in one["evidence"][:EVIDENCE_EACH]]
    evidence += [f"{s['group']} {s['name']}: {s['first']} -> {s['second']}" for s in body["settings"][:12]]
    for file in body["source"]:
        if not file["inessential"]:
            evidence.append(f"source {file['path']} differs")
            evidence += [f"  {line}" for line in file["lines"][2:22]]
    evidence += [f"not compared: {text}" for text in body["missing"]]
    steps = []
    if body["verdict"] == "parted" and not body["proofs"]:
        steps.append(
            f"compare(good='{good}', bad='{bad}', budget_s={PROVE_S}) proves by re-runs which piece makes the difference"
        )
    if body["verdict"] == "parted":
        steps.append(f"diagnose(run='{bad}') says which stage of the second run loses accuracy")
    return Answer(
        f"{verdict}: {body['why']}", evidence, steps or ["nothing: no difference of substance is there to be explained"]
    )


def of_fix(body: Json, run: str) -> Answer:
    """The answer of `fix`."""
    scores, by_hand = body["scores"], body["by_hand"]
    verdict = f"remedied: {', '.join(body['remedied']) or 'nothing by itself'}"
    if scores:
        one = scores[0]
        verdict += f"; validation accuracy {one['before']['value']:.1%} -> {one['after']['value']:.1%}"
        verdict += f" ({_effect(one['gain'])} points on {one['after']['n']} images)"
    unproved = [name for name, told in body["verdicts"].items() if told != "confirmed"]
    if unproved:
        verdict += f"; likely but not proved: {', '.join(unproved)}"
    if body["run"] is None:
        verdict += "; nothing was trained again"
    evidence = []
    for score in scores:
        gain = f"gain {_effect(score['gain'])} points, p = {score['gain']['p_value']:.2g}"
        evidence.append(f"{score['name']}: {_accuracy(score['before'])} -> {_accuracy(score['after'])}, {gain}")
    images = body["images"]
    if images["left_out"] or images["relabelled"]:
        evidence.append(f"images: {images['left_out']} left out, {images['relabelled']} relabelled ({body['out']}/manifest.csv)")
    for edit in body["edits"]:
        evidence.append(f"edit {edit['file']}:{edit['line']} ({edit['cause']})")
        evidence += _edited(edit["old"], edit["new"])
    evidence.append("the user's own files are unchanged")
    steps = []
    if body["edits"]:
        steps.append(f"show the user {body['out']}/fix.patch and apply it with `patch -p1` where they agree")
    if by_hand:
        steps.append(f"still to be mended by hand ({body['out']}/edits.txt): {', '.join(by_hand)}")
    if body["run"] is not None:
        steps.append(f"compare(good='{body['run']}', bad='{run}') shows the fixed run beside the first")
    return Answer(verdict, evidence, [*steps, HONEST])


def _edited(old: str, new: str) -> list[str]:
    """The lines that go and those that come."""
    return [f"  {sign} {line}" for sign, text in (("-", old), ("+", new)) for line in text.splitlines()[:8]]


def _sorted(body: Json) -> tuple[list[Json], list[Json]]:
    """(confirmed and suspected findings, confirmed first; hints)."""
    open_ = [f for f in body["findings"] if f["verdict"] != "refuted"]
    sure = [f for f in open_ if f["verdict"] == "confirmed" or f["confidence"] >= LIKELY]
    return sorted(sure, key=lambda f: f["verdict"] != "confirmed"), [f for f in open_ if f not in sure]


def _verdict(body: Json, sure: Sequence[Json]) -> str:
    if not sure:
        crashed = f" ({len(body['crashed'])} checks of valgap failed)" if body.get("crashed") else ""
        return f"{body.get('without_finding') or 'Nothing is suspected.'}{crashed}"
    confirmed = [f for f in sure if f["verdict"] == "confirmed"]
    first = sure[0]
    tried = "re-runs inconclusive" if first["verdict"] == "inconclusive" else "not proved"
    how = "confirmed by re-runs" if confirmed else f"suspected, {first['confidence']:.0%} sure, {tried}"
    more = len(confirmed or sure) - 1
    also = f"; {more} more {'confirmed' if confirmed else 'suspected'}" if more else ""
    return f"{first['code']} {first['name']} ({how}, {_cost(first)}): {first['summary']}{also}"


def _cost(finding: Json) -> str:
    effect, nats = finding["effect_points"], finding["effect_nats"]
    if effect and finding["verdict"] != "untested":
        loss = f", loss {-nats['value']:+.2f} nats" if nats else ""
        told = "mending gives" if finding["verdict"] == "confirmed" else "re-runs measured"
        return f"{told} {_effect(effect)} points{loss}"
    return f"about {finding['severity_points']:+.1f} points expected"


def _finding(finding: Json) -> list[str]:
    """A finding's line, its strongest evidence, the images that it names, and the remedy."""
    verdict = "" if finding["verdict"] == "untested" else f"{finding['verdict']}, "
    reason = f"; {finding['reason']}" if finding["reason"] else ""
    lines = [
        f"{finding['code']} {finding['name']}, stage {finding['stage']} "
        f"({verdict}{finding['confidence']:.0%} sure, {_cost(finding)}): {finding['summary']}{reason}"
    ]
    lines += [f"  {evidence_line(Evidence(**e))}" for e in finding["evidence"][:EVIDENCE_EACH]]
    subjects = finding["subjects"]
    if subjects:
        lines.append(f"  {len(subjects)} concerned, first {', '.join(repr(s) for s in subjects[:SUBJECTS])}")
    return [*lines, f"  remedy: {finding['remedy']}"]


def _reached(body: Json) -> str:
    accuracy = body.get("accuracy") or {}
    if not accuracy.get("val"):
        return ""
    train = accuracy.get("train_rescored")
    return f"validation accuracy {_accuracy(accuracy['val'])}" + (
        f"; train re-scored alike {train:.1%}" if train is not None else ""
    )


def _account(body: Json) -> list[str]:
    """The ledger's lines, where re-runs were made."""
    if not body.get("experiments"):
        return []
    made = body["experiments"]
    lines = [f"account: {line['name']} {line['points']:+.1f} points" for line in body["ledger"]]
    return [*lines[:10], f"{made['arms']} re-runs of {made['seeds']} seeds in {made['seconds']:.0f} s; {made['fidelity']}"]


def _limits(body: Json) -> list[str]:
    lines = [f"not seen: {text}" for text in body.get("unseen", ())]
    if body.get("unmeasured"):
        lines.append(f"not measured: {body['unmeasured']}")
    refuted = [f["name"] for f in body["findings"] if f["verdict"] == "refuted"]
    if refuted:
        lines.append(f"refuted by re-runs: {', '.join(refuted)}")
    return [*lines, f"{len(body.get('clear', ()))} causes ruled out, {len(body.get('not_applicable', ()))} could not be judged"]


def _next(body: Json, sure: Sequence[Json], run: str, proved: bool) -> list[str]:
    if any(f["verdict"] == "confirmed" for f in sure):
        return [f"fix(run='{run}', out='fixed') applies the confirmed remedies and trains again in the sandbox", HONEST]
    if proved and sure and not body.get("experiments"):
        return [
            f"no re-run could be made: run the script in full with a longer timeout_s, or mend {sure[0]['code']} and run again",
            HONEST,
        ]
    if proved and sure:
        seconds = [p["seconds"] for p in body.get("proposals", ())]
        more = min(MOST_S, int(PROVE_S + (min(seconds) if seconds else PROVE_S)))
        return [
            f"prove(run='{run}', budget_s={more}) goes on from the re-runs that are there",
            f"fix(run='{run}', out='fixed', suspected=True) tries what is likely but not proved; say so to the user",
            HONEST,
        ]
    if sure:
        code = sure[0]["code"]
        steps = [f"prove(run='{run}', budget_s={PROVE_S}) removes each suspected cause alone in re-runs"]
        steps.append(f"explain(code='{code}') says what it means and what looks alike")
        if sure[0]["subjects"]:
            steps.append(f"picture(run='{run}', code='{code}') shows the images concerned")
        return [*steps, HONEST]
    return ["compare(good=..., bad=...) where an earlier run was better; else nothing is to be mended: do not invent a cause"]


def _projected(one: Json | None) -> list[str]:
    if one is None:
        return []
    lines = []
    if one["seconds"] is not None:
        lines.append(
            f"the whole training: about {one['seconds'] / 60:.1f} minutes, {one['epochs']} epochs by {one['epochs_from']}"
        )
    elif one["seconds_per_epoch"] is not None:
        lines.append(f"an epoch: about {one['seconds_per_epoch']:.0f} s; how many is unknown")
    if one["disk_bytes"] and one["free_bytes"] is not None and one["disk_bytes"] > one["free_bytes"]:
        lines.append(f"the disk is too small: {one['disk_bytes'] >> 20} MiB needed, {one['free_bytes'] >> 20} MiB free")
    return lines


def _accuracy(one: Json | None) -> str:
    return f"{one['value']:.1%} ({one['n']} images, {one['low']:.1%} .. {one['high']:.1%})" if one else "not recorded"


def _effect(one: Json) -> str:
    return f"{one['value']:+.1f} ({one['low']:+.1f} .. {one['high']:+.1f})"
