"""What people install: the wheel and the source archive hold all that valgap needs, and the wheel works in a new environment."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from valgap.checks import CATALOGUE

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[1]
PARTS = ("src", "docs", "examples", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "Makefile", "MANIFEST.in")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source archive, built from a copy, so that nothing is left behind in the repository."""
    if importlib.util.find_spec("build") is None:
        pytest.skip("the package build is not installed")
    copy = tmp_path_factory.mktemp("package") / "valgap"
    copy.mkdir()
    for name in (*PARTS, "mkdocs.yml", ".pre-commit-hooks.yaml", "action.yml", "Dockerfile", ".dockerignore", "packaging"):
        source = ROOT / name
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        _ = shutil.copytree(source, copy / name, ignore=ignored) if source.is_dir() else shutil.copy(source, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "made"]
    done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    made = list((copy / "made").iterdir())
    return {path.suffix.removeprefix("."): path for path in made}


def test_the_wheel_holds_every_file_of_the_package(built: dict[str, Path]) -> None:
    names = set(zipfile.ZipFile(built["whl"]).namelist())
    wanted = {
        str(p.relative_to(ROOT / "src"))
        for p in (ROOT / "src" / "valgap").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert {"valgap/py.typed", "valgap/report/templates/report.html", "valgap/review/page/review.js"} <= wanted
    assert wanted - names == set()
    assert {n for n in names if not n.startswith(("valgap/", "valgap-"))} == set(), "nothing beside the package"


def test_the_source_archive_holds_the_pages_and_can_be_built_again(built: dict[str, Path]) -> None:
    with tarfile.open(built["gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    pages = {f"docs/causes/{c.code}.md" for c in CATALOGUE}
    assert pages | {"docs/index.md", "mkdocs.yml", "examples/with_lightning.py", "src/valgap/py.typed", "LICENSE"} <= names


def test_the_wheel_works_in_a_new_environment(built: dict[str, Path], tmp_path: Path) -> None:
    """The dependencies, gigabytes, are taken from here; valgap itself is the wheel's alone."""
    place = tmp_path / "environment"
    venv.create(place, with_pip=False, symlinks=True)
    binaries = place / ("Scripts" if sys.platform == "win32" else "bin")
    python = binaries / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-index",
        "--no-deps",
        str(built["whl"]),
    ]
    subprocess.run(install, check=True, cwd=tmp_path)
    found = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = Path(subprocess.run(found, check=True, capture_output=True, text=True).stdout.strip())
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")

    def run(*arguments: str) -> str:
        bare = {"PATH": str(binaries), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [binaries / "valgap", *arguments], cwd=tmp_path, capture_output=True, text=True, env=bare, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert run("--version").split() == ["valgap", built["whl"].name.split("-")[1]]
    doctor = run("doctor", "--quick")
    assert str(own / "valgap") in doctor and "unknown" not in doctor
    assert [line.split()[0] for line in run("explain").splitlines()] == [c.code for c in CATALOGUE]
    assert run("explain", "MOD302").rstrip().endswith(CATALOGUE[[c.code for c in CATALOGUE].index("MOD302")].doc.strip())
    red = tmp_path / "photos" / "red"
    red.mkdir(parents=True)
    (red / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    run("check", "photos", "--select", "DAT108", "--html", "page.html")
    assert "cut.jpg" in (tmp_path / "page.html").read_text()
