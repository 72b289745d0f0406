"""JUnit and SARIF: what fails and what does not, every name whole, everything that the formats ask for."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

import valgap.cli
from tests.report.pages import HOSTILE, diagnosis, finding, record
from valgap.checks import CATALOGUE
from valgap.report.as_junit import diagnosis_to_junit
from valgap.report.as_sarif import diagnosis_to_sarif
from valgap.report.standing import standing
from valgap.report.words import visible
from valgap.types import Crashed, Diagnosis, Judged, Ranked, RunRecord

# Markup, quotes, a line break, what XML 1.0 cannot hold, half a character (a name that is no UTF-8), and a pair's sign.
NAMES = (
    "<script>alert(1)</script>.jpg",
    'it\'s "quoted" & ]]> done.jpg',
    "two\nlines\r.jpg",
    "bell\x07escape\x1b[2J\x00￾.jpg",
    "latin1-\udce9.jpg",
    "a = b.jpg",
    "50% #1?.jpg",
    "c:\\d\\e.jpg",
    "😀.jpg",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunRecord:
    return record(tmp_path_factory.mktemp("programs"))


def with_names(run: RunRecord, *names: str) -> RunRecord:
    return replace(run, sample_names=(*names, *run.sample_names[len(names) :]))


def cases(text: str) -> dict[str, ElementTree.Element]:
    root = ElementTree.fromstring(text.encode())
    found = {case.attrib["name"].split()[0]: case for case in root.iter("testcase")}
    for one in (root, *root.findall("testsuite")):
        for count, tag in (("tests", "testcase"), ("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(one.attrib[count]) == len(list(root.iter(tag))), (count, one.attrib)
    return found


def the_run(log: dict[str, Any]) -> dict[str, Any]:
    """The one run of a log, after checking what SARIF 2.1.0 requires of every object that we write."""
    assert log["version"] == "2.1.0" and log["$schema"].endswith("sarif-2.1.0.json")
    (run,) = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert run["tool"]["driver"]["name"] == "valgap"
    assert len({r["id"] for r in rules}) == len(rules)
    for rule in rules:
        assert all(rule[part]["text"] for part in ("shortDescription", "fullDescription", "help"))
        assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
    assert isinstance(run["invocations"][0]["executionSuccessful"], bool)
    for result in run["results"]:
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in ("note", "warning", "error")
        assert result["message"]["text"]
        assert 0 <= result["rank"] <= 100
        assert all(isinstance(v, str) for v in result["partialFingerprints"].values())
        assert len(result["locations"]) == 1
    for place in places(run):
        uri = urlsplit(place["uri"])
        assert uri.path and not uri.query and not uri.fragment
        assert re.fullmatch(r"[A-Za-z0-9._~/%-]+", uri.path), uri.path
        assert (uri.scheme == "file") != (place.get("uriBaseId") in run["originalUriBaseIds"])
    assert all(base["uri"].endswith("/") for base in run["originalUriBaseIds"].values())
    return run


def places(run: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for result in run["results"]:
        for location in (*result["locations"], *result["relatedLocations"]):
            yield location["physicalLocation"]["artifactLocation"]


def test_what_counts(run: RunRecord) -> None:
    one = diagnosis(run, ("MOD302", finding()), ("PRE201", finding()), ("EVA501", finding(confidence=0.3)))
    refuted = next(j for j in one.judged if j.check.code == "PRE201")
    judged = [replace(j, verdict="refuted", reason="no effect") if j is refuted else j for j in one.judged]
    judged = [Judged(j.check, Crashed("Traceback\n  File x\nKeyError: 'a'")) if j.check.code == "DAT108" else j for j in judged]
    one = replace(one, judged=tuple(judged))
    assert {j.check.code: standing(j) for j in judged if j.check.code in ("MOD302", "PRE201", "EVA501", "DAT108")} == {
        "MOD302": "confirmed",
        "PRE201": "refuted",
        "EVA501": "hint",
        "DAT108": "crashed",
    }
    found = cases(diagnosis_to_junit(one))
    assert list(found) == [j.check.code for j in judged] and len(found) == len(CATALOGUE)
    failure = found["MOD302"].find("failure")
    assert failure is not None and failure.attrib == {"message": "98 statistics moved", "type": "confirmed"}
    assert failure.text is not None and "remedy: hold them still" in failure.text and "share moved: 1" in failure.text
    assert [c for c, e in found.items() if e.find("failure") is not None] == ["MOD302"]
    error = found["DAT108"].find("error")
    assert error is not None and error.attrib["message"] == "KeyError: 'a'" and "File x" in (error.text or "")
    for code in ("PRE201", "EVA501"):
        told = found[code].findtext("system-out") or ""
        assert told.startswith(("refuted", "hint")[code == "EVA501"]), told

    sarif = the_run(diagnosis_to_sarif(one, Path("/")))
    assert {r["ruleId"]: r["level"] for r in sarif["results"]} == {"MOD302": "error", "EVA501": "note"}
    assert sarif["properties"]["refuted"] == {"PRE201": "no effect"}
    assert sarif["invocations"][0]["executionSuccessful"] is False
    assert "KeyError" in sarif["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]
    told = {*sarif["properties"]["ruledOut"], *sarif["properties"]["notJudged"], "MOD302", "PRE201", "EVA501", "DAT108"}
    assert told == {c.code for c in CATALOGUE}


def test_only_what_the_exit_status_fails_on_fails(run: RunRecord) -> None:
    one = diagnosis(run, ("MOD302", finding()), ("PRE201", finding()))
    assert [j.check.code for j in one.judged if standing(j) == "suspected"] == ["PRE201"]
    for fail_on, failed in (("suspected", {"MOD302", "PRE201"}), ("confirmed", {"MOD302"})):
        found = cases(diagnosis_to_junit(one, fail_on))
        assert {c for c, e in found.items() if e.find("failure") is not None} == failed
    assert (found["PRE201"].findtext("system-out") or "").startswith("suspected: 98 statistics moved")


def test_images_are_results_with_their_files(run: RunRecord) -> None:
    names = run.sample_names
    root = Path(str(run.header["cwd"])).parent
    label = finding(subjects=names[:2], ranking=(Ranked(names[0], 0.97, "ant", "bee"), Ranked(names[1], 0.9, "cat", "dog")))
    twins = finding(subjects=(f"{names[3]} = {names[4]}",))
    whole = finding(subjects=("fc.weight",))
    sarif = the_run(diagnosis_to_sarif(diagnosis(run, ("DAT104", label), ("DAT101", twins), ("MOD302", whole)), root))
    by_rule: dict[str, list[dict[str, Any]]] = {}
    for result in sarif["results"]:
        by_rule.setdefault(result["ruleId"], []).append(result)
    first, second = by_rule["DAT104"]
    assert "Given ant, likely bee (score 0.97)." in first["message"]["text"]
    assert "likely dog" in second["message"]["text"]
    assert first["partialFingerprints"] != second["partialFingerprints"]
    uris = [place["uri"] for place in places({"results": [first, second, *by_rule["DAT101"]]})]
    assert uris == [f"{Path(str(run.header['cwd'])).name}/{n}" for n in (*names[:2], *names[3:5])]
    assert all((root / uri).is_file() for uri in uris)
    (other,) = by_rule["MOD302"]
    assert other["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("/train.py")
    assert "fc.weight" in other["message"]["text"]
    elsewhere = the_run(diagnosis_to_sarif(diagnosis(run, ("DAT104", label)), Path("/nowhere")))
    assert all(place["uri"].startswith("file:///") for place in places(elsewhere))


@pytest.mark.parametrize("name", NAMES)
def test_hostile_names_come_back_whole(run: RunRecord, name: str) -> None:
    hostile = with_names(run, name, "b.jpg")
    known = (finding(summary=HOSTILE, subjects=(name,), ranking=(Ranked(name, 0.9, HOSTILE, name),), remedy=HOSTILE),)
    one = diagnosis(hostile, ("DAT104", *known), ("DAT101", finding(subjects=(f"{name} = b.jpg",))))

    found = cases(diagnosis_to_junit(one))
    failure = found["DAT104"].find("failure")
    assert failure is not None and failure.attrib["message"] == visible(HOSTILE)
    assert f"concerns: {visible(name)}" in (failure.text or "").splitlines()
    assert list(failure) == []

    log = json.loads(json.dumps(diagnosis_to_sarif(one, Path("/"))).encode("ascii"))
    results = {r["ruleId"]: r for r in the_run(log)["results"]}
    assert f"likely {visible(name)}" in results["DAT104"]["message"]["text"]
    base = os.fsencode(str(hostile.header["cwd"])).lstrip(b"/")
    for code in ("DAT104", "DAT101"):
        place = next(places({"results": [results[code]]}))
        assert unquote_to_bytes(place["uri"]) == base + b"/" + name.encode("utf-8", "surrogateescape")
    json.dumps(log, ensure_ascii=False).encode()  # no half characters are left


def test_the_files_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    photos = tmp_path / "photos"
    for label in ("red", "blue"):
        (photos / label).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (40, 40), (number * 40, 80, 120)).save(photos / label / f"{number}.png")
    (photos / "red" / "<cut>\n.jpg").write_bytes(b"\xff\xd8\xff")
    monkeypatch.chdir(tmp_path)
    command = ["check", "photos", "--select", "DAT108", "--junit", "a.xml", "--sarif", "a.sarif"]
    assert CliRunner().invoke(valgap.cli.app, [*command, "--fail-on", "suspected"]).exit_code == 1
    assert cases((tmp_path / "a.xml").read_text())["DAT108"].find("failure") is not None
    sarif = the_run(json.loads((tmp_path / "a.sarif").read_text()))
    (place,) = places(sarif)
    assert unquote_to_bytes(place["uri"]).decode() == "photos/red/<cut>\n.jpg"
    assert (tmp_path / unquote_to_bytes(place["uri"]).decode()).is_file()

    assert CliRunner().invoke(valgap.cli.app, command).exit_code == 0, "reports of valgap are replaced"
    (tmp_path / "a.xml").write_text("mine")
    refused = CliRunner().invoke(valgap.cli.app, command)
    assert "nothing is overwritten" in str(refused.exception)
    assert (tmp_path / "a.xml").read_text() == "mine"


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no UTF-8")
def test_names_that_are_no_text_are_written_to_every_report(tmp_path: Path) -> None:
    (tmp_path / "photos" / "red").mkdir(parents=True)
    for number in range(3):
        (tmp_path / "photos" / "red" / os.fsdecode(b"\xe9%d.jpg" % number)).write_bytes(b"\xff\xd8\xff")
    files = [tmp_path / f"r.{kind}" for kind in ("html", "junit", "sarif")]
    options = [part for file in files for part in (f"--{file.suffix[1:]}", str(file))]
    done = CliRunner().invoke(valgap.cli.app, ["check", str(tmp_path / "photos"), "--select", "DAT108", *options])
    assert done.exit_code == 0, done.exception
    assert all("\\udce90.jpg" in file.read_text("utf-8") for file in files[:2])
    assert "%E90.jpg" in files[2].read_text("utf-8")


def test_a_sound_run_fails_nowhere(run: RunRecord) -> None:
    one: Diagnosis = diagnosis(run)
    assert not [c for c, e in cases(diagnosis_to_junit(one)).items() if e.find("failure") is not None]
    assert [r for r in the_run(diagnosis_to_sarif(one, Path("/")))["results"] if r["level"] != "note"] == []
