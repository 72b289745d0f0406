"""Numbers in printed lines."""

import pytest

from valgap.record.printed import numbers_in


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("val acc: 0.8125", [("val acc", 0.8125)]),
        ("Epoch 1/2  train loss 1.5 acc 0.3  val loss 2e-3 acc 0.5", [
            ("epoch", 1), ("", 2), ("train loss", 1.5), ("train acc", 0.3), ("val loss", 2e-3), ("val acc", 0.5)]),
        ("{'eval_accuracy': 0.9, 'epoch': 3}", [("eval_accuracy", 0.9), ("eval epoch", 3)]),
        ("no numbers", []),
        ("model_v2.pth saved", []),
    ],
)  # fmt: skip
def test_labels_and_values(line: str, expected: list[tuple[str, float]]) -> None:
    assert [(n.label, n.value) for n in numbers_in(line, 0)] == expected
