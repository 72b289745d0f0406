"""A real S3 server on loopback (moto): the findings of the local folder, with failures, slowness and wrong credentials."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.features.pictures import scene
from valgap.data import remote
from valgap.data.contents import read_content
from valgap.diagnosis import check
from valgap.errors import DataError
from valgap.features import rows_of_path
from valgap.report.as_json import diagnosis_to_json

pytest.importorskip("s3fs")
server_module = pytest.importorskip("moto.server", reason="pip install 'moto[server]' to run these")
pytestmark = pytest.mark.takes(40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("s3") / "photos"
    for split, count in (("train", 12), ("val", 5)):
        for label in range(2):
            place = root / split / f"class {label}"
            place.mkdir(parents=True)
            for i in range(count):
                tint = [1.0, 0.6, 0.4] if label else [0.4, 0.6, 1.0]
                picture = np.asarray(scene(100 * (split == "val") + 50 * label + i, 96)) * tint
                Image.fromarray(picture.astype(np.uint8)).save(place / f"{i:02d}.jpg", quality=90)
    (root / "val" / "class 0" / "copy + é.jpg").write_bytes((root / "train" / "class 0" / "03.jpg").read_bytes())
    return root


class Unsteady:
    """moto's server behind what goes wrong on the way: failures, slowness, refusals."""

    def __init__(self) -> None:
        self.inner = server_module.DomainDispatcherApplication(server_module.create_backend_app)
        self.fails_every, self.slow_every, self.locked, self.asked, self.failed = 0, 0, False, 0, 0

    def steady(self) -> None:
        self.fails_every, self.slow_every, self.locked, self.asked, self.failed = 0, 0, False, 0, 0

    def __call__(self, environ: Any, start_response: Any) -> Any:
        self.asked += 1
        if self.locked:
            start_response("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        if self.fails_every and self.asked % self.fails_every == 0:
            self.failed += 1
            start_response("503 Service Unavailable", [("Content-Type", "application/xml")])
            return [b"<Error><Code>ServiceUnavailable</Code><Message>later</Message></Error>"]
        if self.slow_every and self.asked % self.slow_every == 0:
            time.sleep(0.2)
        return self.inner(environ, start_response)


way = Unsteady()


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    serving = pytest.importorskip("werkzeug.serving")
    server = serving.make_server("127.0.0.1", 0, way, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def bucket(folder: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder in a bucket; the environment names the server and has keys for it."""
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(remote, "WAIT_S", 0.01)
    way.steady()
    remote._states.clear()
    fsspec.filesystem("s3").clear_instance_cache()
    system = fsspec.filesystem("s3")
    system.invalidate_cache()
    if not system.exists("pictures"):
        system.mkdir("pictures")
        system.put(str(folder), "pictures/photos", recursive=True)
    return "s3://pictures/photos"


def findings(data: str | Path) -> str:
    return json.dumps({k: v for k, v in diagnosis_to_json(check(data)).items() if k != "run"})


def test_a_bucket_gives_the_findings_of_the_folder(folder: Path, bucket: str) -> None:
    expected = findings(folder)
    assert '"DAT101"' in expected
    assert findings(bucket) == expected


def test_failures_and_slowness_change_nothing(folder: Path, bucket: str) -> None:
    way.fails_every, way.slow_every = 4, 7
    assert findings(bucket) == findings(folder)
    assert way.failed > 8


def test_a_server_that_goes_away_ends_the_check(bucket: str) -> None:
    rows = rows_of_path(bucket)
    way.fails_every = 1
    with pytest.raises(DataError, match=r"could not be read in 4 tries.*goes on where it was"):
        read_content(rows.paths[0])
    assert way.failed <= 60


def test_no_access_is_told(bucket: str) -> None:
    rows = rows_of_path(bucket)
    way.locked = True
    with pytest.raises(DataError, match=r"no access to s3://pictures/photos.*credentials"):
        read_content(rows.paths[0])
    with pytest.raises(DataError, match="no access to"):
        check("s3://pictures/elsewhere")
    assert way.asked < 30, "a refusal is not asked for again and again"


def test_no_such_place(bucket: str) -> None:
    with pytest.raises(DataError, match="there is no s3://nosuchbucket"):
        rows_of_path("s3://nosuchbucket/photos")
