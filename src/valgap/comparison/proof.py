"""The proof: the first run's program, piece by piece, is put into the second's; re-runs say what makes the difference."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from valgap.comparison.pieces import Piece, absolute, pieces_of, texts_of
from valgap.comparison.result import compare
from valgap.experiments.arm import ArmSpec
from valgap.experiments.arm_result import ArmResult
from valgap.experiments.plan import SEEDS, Length, arm_memory, arms_in_parallel, choose_length, epoch_seconds, least_budget
from valgap.experiments.runner import PATIENCE, PATIENCE_S, Limits, Runner
from valgap.experiments.suspects import NotRepeatableError, base_spec
from valgap.experiments.verdicts import compared, judge_effect, measure
from valgap.types import Comparison, Effect, Proved, RunRecord

# Undecided pieces are looked at with more seeds, as long as there is time.
MOST_SEEDS = 6
WHOLE = "the whole of the first program"
ALL_PIECES = "what does not run alone, together"
WORDS = {"confirmed": "makes the difference", "refuted": "makes none", "inconclusive": "undecided", "untested": "not proved"}
NO_ACT = "no change to the running program makes it: versions, hardware and what is not in source or call stay as they are"
FOLDER = "compared"
Progress = Callable[[int, int, float], None]


def prove(
    comparison: Comparison, good: RunRecord, bad: RunRecord, budget_s: float, progress: Progress | None = None
) -> Comparison:
    """The comparison with what re-runs within ``budget_s`` seconds say of each piece; arms live in ``BAD/compared``.

    Every arm is the recorded program in the sandbox; seeds move what is drawn from its first loader on.
    """
    pieces = pieces_of(good, bad, comparison)
    if not pieces and comparison.verdict != "parted" and not comparison.source:
        return comparison
    begun = time.monotonic()
    folder = Path(bad.path) / FOLDER
    try:
        base = _base(bad, folder, "bad")
        whole = _whole(good, bad, base, folder)
    except NotRepeatableError as why:
        return replace(comparison, proofs=(Proved(WHOLE, None, WORDS["untested"], str(why)),))
    named = {WHOLE: whole, **{p.name: _with_piece(base, p, bad, folder) for p in pieces}}
    count = SEEDS * (1 + len(named))
    length = choose_length(bad, count, budget_s)
    if length is None:
        minutes = -(-least_budget(bad, count) // 60)
        text = f"not tried: the time budget is too small; --budget {minutes:.0f}m would do"
        return replace(comparison, proofs=tuple(Proved(n, None, WORDS["untested"], text) for n in named))
    runner = Runner(
        folder,
        arms_in_parallel(bad),
        begun + budget_s,
        progress,
        0.05 * budget_s,
        Limits(PATIENCE_S + PATIENCE * max(bad.seconds, good.seconds), arm_memory(bad)),
        planned=count,
        expected_s=sum(epoch_seconds(bad)),
        like=bad,
    )
    try:
        trial = _Trial(runner, base, named, length, comparison, good)
        return replace(comparison, proofs=tuple(trial.run()))
    finally:
        runner.close()
        runner.forget_features()


def _base(run: RunRecord, folder: Path, name: str) -> ArmSpec:
    """The recorded program, with the text that it had then."""
    spec = base_spec(run)
    texts = texts_of(run)
    return replace(spec, edited=_edited(run, spec, texts, folder / f"{name}-source")) if texts is not None else spec


def _whole(good: RunRecord, bad: RunRecord, base: ArmSpec, folder: Path) -> ArmSpec:
    """The first program; where it is no longer there, or was on another machine, its text in the second one's place."""
    try:
        return _base(good, folder, "good")
    except NotRepeatableError:
        texts, argv = texts_of(good), good.header.get("argv")
        if texts is None or not isinstance(argv, list):
            raise
        given = [absolute(str(word), good) for word in argv[1:]]
        return replace(base, edited=_edited(bad, base, texts, folder / "good-source"), argv=[*base.argv[:1], *given])


def _with_piece(base: ArmSpec, piece: Piece, bad: RunRecord, folder: Path) -> ArmSpec:
    texts = texts_of(bad)
    edited = base.edited
    if piece.texts and texts is not None:
        digest = hashlib.blake2b(repr(sorted(piece.texts.items())).encode(), digest_size=6).hexdigest()
        edited = _edited(bad, base, {**texts, **piece.texts}, folder / f"part-{digest}-source")
    return replace(base, edited=edited, argv=list(piece.argv or base.argv), interventions=list(piece.acts))


def _edited(run: RunRecord, spec: ArmSpec, texts: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The program's files, by the path at which each is run, and the copies that are run in their place."""
    script = Path(spec.cwd) / spec.script
    if spec.module:
        stem = Path(spec.cwd) / spec.module.replace(".", "/")
        script = next((p for p in (stem.with_suffix(".py"), stem / "__main__.py") if p.is_file()), stem)
    home = Path(spec.cwd) if spec.module else script.parent
    edited = {}
    for number, (path, text) in enumerate(sorted(texts.items())):
        copy = folder / f"{number}.py"
        folder.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
        edited[str(script if not path else home / path)] = str(copy.resolve())
    return edited


@dataclass
class _Looked:
    """What is known of one piece."""

    spec: ArmSpec
    arms: list[ArmResult]
    looks: int = 0
    effect: Effect | None = None
    verdict: str = "untested"
    text: str = ""
    error: str = ""


class _Trial:
    """Control and pieces, seed by seed."""

    def __init__(
        self,
        runner: Runner,
        base: ArmSpec,
        named: Mapping[str, ArmSpec],
        length: Length,
        comparison: Comparison,
        good: RunRecord,
    ) -> None:
        self.runner, self.length, self.comparison, self.good = runner, length, comparison, good
        cut = {"epochs": length.epochs, "fraction": length.fraction}
        self.base = replace(base, **cut)  # type: ignore[arg-type]
        self.control: list[ArmResult] = []
        self.pieces = {name: _Looked(replace(spec, **cut), []) for name, spec in named.items()}  # type: ignore[arg-type]

    def run(self) -> list[Proved]:
        """All pieces in the first seeds, then what is undecided in more of them."""
        self._look(list(self.pieces), SEEDS)
        broken = [n for n, one in self.pieces.items() if one.error and n != WHOLE and one.spec.edited != self.base.edited]
        if len(broken) > 1:
            self._together(broken)
        seeds = SEEDS
        while seeds < MOST_SEEDS and self._open() and self._time_for(1 + len(self._open())):
            seeds += 1
            self._look(self._open(), seeds)
        return [self._proved(name, one) for name, one in self.pieces.items()]

    def _together(self, names: Sequence[str]) -> None:
        """Parts of a text that do not run alone, as one: the whole text of the first program, in the second one's call."""
        whole = self.pieces[WHOLE].spec
        copies = dict(zip(sorted(self.base.edited), [whole.edited[k] for k in sorted(whole.edited)], strict=False))
        self.pieces[ALL_PIECES] = _Looked(replace(self.base, edited=copies), [])
        self._look([ALL_PIECES], SEEDS)

    def _open(self) -> list[str]:
        return [n for n, one in self.pieces.items() if one.verdict == "inconclusive"]

    def _time_for(self, arms: int) -> bool:
        rounds = -(-arms // self.runner.parallel)
        return time.monotonic() + rounds * self.runner.expected_s < self.runner.deadline

    def _look(self, names: Sequence[str], seeds: int) -> None:
        """Run what is missing, seed by seed, and judge."""
        jobs = [("", self.base, s) for s in range(len(self.control), seeds)]
        for name in names:
            one = self.pieces[name]
            jobs += [(name, one.spec, s) for s in range(len(one.arms), seeds)]
        jobs.sort(key=lambda job: job[2])
        results = self.runner.run([replace(spec, seed=s) for _, spec, s in jobs])
        for (name, _, _), arm in zip(jobs, results, strict=True):
            (self.pieces[name].arms if name else self.control).append(arm)
        for name in names:
            self._judge(self.pieces[name])

    def _judge(self, one: _Looked) -> None:
        pairs = [(c, t) for c, t in zip(self.control, one.arms, strict=False) if c.error is None and t.error is None]
        failed = next((a.error for a in (*self.control, *one.arms) if a.error is not None), "")
        if len(pairs) < 2:
            one.error = failed or "no arm ended"
            one.text = f"not proved: {one.error}"
            return
        unused = one.spec.interventions and not any(n for _, t in pairs for n in t.acted)
        found = compared([c for c, _ in pairs], [t for _, t in pairs])
        if found is None or unused:
            one.text = "not proved: " + ("the change found nothing to act on" if unused else "no validation sample in common")
            return
        one.looks += 1
        one.effect = measure(found, len(self.pieces), one.looks)
        told = judge_effect(one.effect, 1.0 if one.effect.value >= 0 else -1.0)
        one.verdict, one.text = told.verdict, told.reason

    def _proved(self, name: str, one: _Looked) -> Proved:
        text = one.text
        if not self.length.whole():
            text += f"; re-runs of {self.length.epochs or 'all'} epochs on {self.length.fraction:.0%} of the training images"
        gone = self._gone(one) if name != WHOLE else ""
        return Proved(name, one.effect, WORDS[one.verdict], text + gone, len(one.arms))

    def _gone(self, one: _Looked) -> str:
        """Whether the runs still part in what they parted in, with this piece in place."""
        record = one.arms[0].record if one.arms else None
        head = self.comparison.headline
        if record is None or head is None or not self.length.whole():
            return ""
        left = compare(self.good, record)
        if any(d.quantity == head.quantity and d.text == head.text for d in left.departures):
            return ""
        if left.headline is None:
            return f"; with it, nothing of substance is left in which the runs part ({left.verdict})"
        return f"; with it, the first difference is gone: {left.headline.quantity} is next"
