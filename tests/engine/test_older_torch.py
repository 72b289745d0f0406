"""What an older torch cannot tell is done without."""

from __future__ import annotations

import pytest
import torch

from valgap.engine.forward import candidates, has_bfloat16


def test_without_a_word_about_bfloat16_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert has_bfloat16() and "bf16" in candidates(torch.device("cpu"))
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not has_bfloat16() and "bf16" not in candidates(torch.device("cpu"))
