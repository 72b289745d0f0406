"""`valgap fix`: confirmed findings and decisions -> manifest, config, edits, a retraining, before and after."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from valgap.checks.data.class_index_mismatch import renamed_by
from valgap.diagnosis import diagnose, with_names
from valgap.edits.patch import Edit, Patch, make_patch, program_files
from valgap.edits.snippets import SNIPPETS
from valgap.errors import ValgapError
from valgap.experiments.scoring import is_score
from valgap.fix.manifest import Row, link_images, plan_images, write_manifest
from valgap.fix.retrain import data_interventions, rerun_script, train_again
from valgap.fix.scores import Score, answers, compare
from valgap.record.reader import read_record
from valgap.review.decisions import FILE, Decisions
from valgap.types import TRAINED, Case, Diagnosis, Finding, Intervention, Judged, RunRecord, Untreatable

SUSPECTED = 0.5
# A retraining may take so many times the recorded program's time, and at least so long.
PATIENCE, LEAST_S = 4.0, 600.0


@dataclass(frozen=True)
class FixResult:
    """What was done."""

    out: Path
    diagnosis: Diagnosis
    remedied: tuple[str, ...]  # causes that were removed
    by_hand: tuple[str, ...]  # causes that are left to somebody
    rows: tuple[Row, ...]
    patch: Patch | None
    run: Path | None  # the new run; None where nothing was trained
    scores: tuple[Score, ...]


def fix(
    run_directory: Path,
    out: Path,
    *,
    budget: str = "10m",
    suspected: bool = False,
    links: bool = False,
    retrain: bool = True,
    progress: Callable[[int, int, float], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> FixResult:
    """Apply the remedies of confirmed causes (``suspected``: of those we would bet on as well) and of decisions.

    Everything is written below ``out``, which must not be there yet; nothing of the user's is changed.

    Raises:
        ValgapError: ``out`` is there, there is nothing to mend, or the fixed program cannot be trained.
    """
    if out.exists():
        raise ValgapError(f"{out} is there already: choose another --out, nothing is overwritten")
    diagnosis = diagnose(run_directory, budget=budget, progress=progress, say=say)
    run = diagnosis.run
    decisions = Decisions(run_directory / FILE).current()
    chosen = [j for j in diagnosis.findings if wanted(j, suspected)]
    rows = plan_images(diagnosis, decisions, [j.check.code for j in chosen])
    changed = [r for r in rows if not r.kept or r.label != r.given]
    if not chosen and not changed:
        raise ValgapError(
            "no cause is confirmed and no image was decided about: give a larger --budget, look at the images with "
            "`valgap review`, or take --suspected"
        )
    out.mkdir(parents=True)
    write_manifest(rows, out / "manifest.csv")
    _write_config(run, out)
    own = run.header.get("script") == TRAINED
    patch = None if own else make_patch(_files(run), [(j.check.name, facts_of(run, j)) for j in chosen])
    copies = _write_patch(run, patch, out, chosen) if patch is not None else {}
    say(f"{len(changed)} images changed, {len(patch.edits) if patch else 0} edits; written to {out}")
    base = Path(str(run.header.get("cwd", ".")))
    linked = link_images(rows, out / "data", base) if links or own else {}
    edited = {e.cause for e in patch.edits} if patch is not None else set()
    acts, remedied, by_hand = _share_out(run, chosen, edited, own)
    targets = _right_targets(run, [j for j in chosen if j.check.name not in edited])  # an edited program numbers them right
    new = None
    if retrain and own:
        new = train_again(run, out, out / "data")
    elif retrain and (copies or acts or changed):
        limit = max(LEAST_S, PATIENCE * run.seconds)
        new = rerun_script(run, out, copies, [*acts, *data_interventions(run, rows)], limit)
    scores: list[Score] = []
    if new is not None:
        renamed = {str((out / "data").resolve() / link): path for link, path in linked.items()} if own else None
        scores = compare(answers(run), answers(with_names(read_record(new)), renamed, targets), rows)
    elif targets is not None:  # the trained model is sound: its answers are counted under the right labels
        scores = compare(answers(run), answers(run, targets=targets), rows)
    return FixResult(out, diagnosis, tuple(remedied), tuple(by_hand), tuple(rows), patch, new, tuple(scores))


def wanted(judged: Judged, suspected: bool) -> bool:
    """Whether a finding is to be remedied."""
    finding = judged.outcome
    if not isinstance(finding, Finding) or judged.verdict == "refuted":
        return False
    return judged.verdict == "confirmed" or (suspected and finding.confidence >= SUSPECTED)


def facts_of(run: RunRecord, judged: Judged) -> dict[str, object]:
    """What an edit needs to know beside the script: the settings of the treatment, and the weights' normalisation."""
    treatment = _own_treatment(run, judged)  # an edit knows the cause's own settings, not those of a whole stage
    facts: dict[str, object] = dict(treatment.settings) if treatment is not None else {}
    model = run.trained_model
    if judged.check.name == "normalization_mismatch" and facts.get("phase") == "both" and model is not None:
        facts |= {"mean": list(model.expected_mean or ()), "std": list(model.expected_std or ())}
    if judged.check.name == "class_index_mismatch":
        facts |= {"renamed_by": renamed_by(run)}
    return facts


def _treatment(run: RunRecord, judged: Judged) -> Intervention | None:
    return judged.tried if judged.tried is not None else _own_treatment(run, judged)


def _own_treatment(run: RunRecord, judged: Judged) -> Intervention | None:
    if judged.check.treat is None or not isinstance(judged.outcome, Finding):
        return None
    treatment = judged.check.treat(Case(run), judged.outcome)
    return None if isinstance(treatment, Untreatable) else treatment


def code_of_remedies(diagnosis: Diagnosis) -> dict[str, str]:
    """Code by the code of each finding: edits of the program's own files where the place is found, else a snippet."""
    run = diagnosis.run
    findings = [j for j in diagnosis.findings if wanted(j, suspected=True)]
    own = run.header.get("script") in (TRAINED, "watch", None)
    patch = make_patch(() if own else _files(run), [(j.check.name, facts_of(run, j)) for j in findings])
    found: dict[str, str] = {}
    for judged in findings:
        edits = [e for e in patch.edits if e.cause == judged.check.name]
        if edits:
            found[judged.check.code] = "\n\n".join(_as_text(e) for e in edits)
        elif judged.check.name in SNIPPETS:
            found[judged.check.code] = SNIPPETS[judged.check.name]
    return found


def _as_text(edit: Edit) -> str:
    lines = [f"- {line}" for line in edit.old.splitlines()] + [f"+ {line}" for line in edit.new.splitlines()]
    return "\n".join([f"{edit.file}:{edit.line}", *lines])


def _share_out(
    run: RunRecord, chosen: Sequence[Judged], edited: Collection[str], own: bool
) -> tuple[list[Intervention], list[str], list[str]]:
    """(interventions for what has no edit, causes that are removed, causes left to somebody); ``own``: of `valgap train`."""
    acts, remedied, by_hand = [], [], []
    for judged in chosen:
        name = judged.check.name
        treatment = None if own else _treatment(run, judged)
        if name in edited or judged.check.code == "DAT101":
            remedied.append(name)
        elif treatment is not None and treatment.name == "score_renamed":
            remedied.append(name)
            by_hand.append(name)  # what is counted before and after has it removed; the script still numbers them so
        elif treatment is not None and not is_score(treatment) and treatment.name != "arguments":
            acts.append(treatment)
            remedied.append(name)
            by_hand.append(name)  # in the re-run it is removed from outside; the script itself still has it
        else:
            by_hand.append(name)
    return acts, remedied, by_hand


def _right_targets(run: RunRecord, chosen: Sequence[Judged]) -> Mapping[str, int] | None:
    """Train's index by validation's, where a chosen cause is that they differ."""
    for treatment in (_treatment(run, judged) for judged in chosen):
        if treatment is not None and treatment.name == "score_renamed":
            mapping = treatment.settings["mapping"]
            assert isinstance(mapping, dict)
            return mapping
    return None


def _files(run: RunRecord) -> list[Path]:
    header = run.header
    base = Path(str(header.get("cwd", ".")))
    module = header.get("module")
    if module:
        places = [base / f"{str(module).replace('.', os.sep)}.py", base / str(module).replace(".", os.sep) / "__main__.py"]
        main = next((p for p in places if p.is_file()), places[0])
    else:
        main = base / str(header.get("script", ""))
    return program_files(main)


def _write_patch(run: RunRecord, patch: Patch, out: Path, chosen: Sequence[Judged]) -> dict[Path, Path]:
    """The edits as text, as a diff and as edited copies; returns original -> copy."""
    base = Path(str(run.header.get("cwd", ".")))
    lines = []
    for edit in patch.edits:
        lines += [f"{edit.cause}:", _as_text(edit), ""]
    for judged in chosen:
        if judged.check.name in patch.left and isinstance(judged.outcome, Finding):
            lines.append(f"by hand: {judged.check.name}: {judged.outcome.remedy}")
            lines += [f"    {line}" for line in SNIPPETS.get(judged.check.name, "").splitlines()]
    (out / "edits.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if patch.after:
        (out / "fix.patch").write_text(patch.diff(base), encoding="utf-8")
    copies = {}
    for number, (file, text) in enumerate(patch.after.items()):
        copy = out / "script" / (file.name if number == 0 else f"{number}-{file.name}")
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(text, encoding="utf-8")
        copies[file] = copy
    return copies


def _write_config(run: RunRecord, out: Path) -> None:
    """Settings for `valgap train` with the program's own length and batches."""
    last = run.last_train
    loader = run.loaders.get(last.loader) if last is not None else None
    lines = ["# valgap train data/ --config train.yaml      (data/ is made by valgap fix --links)"]
    lines.append(f"epochs: {max(1, len(run.of_phase('train')))}")
    if loader is not None and loader.batch_size > 0:
        lines.append(f"batch_size: {loader.batch_size}")
    (out / "train.yaml").write_text("\n".join(lines) + "\n")
