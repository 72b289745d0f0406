"""Containers of strangers: their places and sizes may lie, and what they hold is bounded."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from valgap.data import containers
from valgap.data.contents import read_content
from valgap.errors import DataError
from valgap.features.source import rows_of_path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a/1.png", bytes(100_000))
    return tmp_path / "x.zip"


def test_what_unpacks_to_too_much_is_refused(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (one,) = containers.zipped(str(archive))
    assert len(read_content(one.address)) == 100_000
    monkeypatch.setattr(containers, "MAX_MEMBER", 99_999)
    with pytest.raises(OSError, match="no image is as large"):
        read_content(one.address)


@pytest.mark.parametrize(
    "place", ["", "1+2+3", "x+1+0+0", "-1+5+0+0", "0+99999999999999+0+0", "9999999999999999999999+1+0+0", "\u0663+1+0+0"]
)
@pytest.mark.parametrize("kind", ["zip", "tar", "parquet"])
def test_a_place_that_is_none_is_no_image(archive: Path, kind: str, place: str) -> None:
    with pytest.raises(OSError):
        read_content(f"{kind}://{archive}#{place}")


def test_a_damaged_archive_is_said(archive: Path) -> None:
    data = bytearray(archive.read_bytes())
    central = data.rindex(b"PK\1\2")
    data[central + 9] |= 8  # the names are UTF-8, it says
    data[central + 46] = 0xCC
    archive.write_bytes(bytes(data))
    with pytest.raises(DataError, match="no zip file that can be read"):
        rows_of_path(archive)


def test_labels_beside_the_names_of_a_table_stand_for_themselves(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    stream = io.BytesIO()
    told = json.dumps({"info": {"features": {"label": {"names": ["ant", "bee"]}}}}).encode()
    table = pyarrow.table({"image": [b"x"] * 4, "label": [0, 1, 7, None]}).replace_schema_metadata({b"huggingface": told})
    parquet.write_table(table, stream)
    (tmp_path / "x.parquet").write_bytes(stream.getvalue())
    rows = rows_of_path(tmp_path / "x.parquet")
    assert [rows.classes[i] if i >= 0 else None for i in rows.labels] == ["ant", "bee", "7", None]
    (tmp_path / "x.parquet").write_bytes(stream.getvalue()[:-9] + b"damaged!!")
    with pytest.raises(DataError, match="no table that can be read"):
        rows_of_path(tmp_path / "x.parquet")
    with pytest.raises(OSError, match="holds no row"):
        read_content(f"parquet://{tmp_path}/x.parquet#0")
