"""The tests' own feature cache: they neither read nor fill the user's."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile

os.environ["VALGAP_CACHE"] = tempfile.mkdtemp(prefix="valgap-cache-")
atexit.register(shutil.rmtree, os.environ["VALGAP_CACHE"], True)
