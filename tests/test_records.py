"""README and the recipes' docstrings say what the committed runs say."""

import pytest

from fastssl.benchmarks import records
from fastssl.benchmarks.records import RECORDS, ROOT, Record, renewed

BY_FILE = pytest.mark.parametrize(
    "record", RECORDS, ids=lambda record: f"{record.path}: {record.first_line.strip()[:20]}"
)


@pytest.mark.skipif(not (ROOT / "README.md").exists(), reason="not a checkout")
@BY_FILE
def test_the_figures_are_those_of_the_runs(record):
    text = (ROOT / record.path).read_text()
    assert renewed(text, record) == text, "run python -m fastssl.benchmarks.records"


def test_figures_are_replaced_in_their_places(monkeypatch):
    values = {"a": "5.00 ± 10.25", "b": "97.00 ± 0.10", "c": "1.00 ± 0.00"}
    monkeypatch.setattr(records, "figure", values.get)
    table = "| t |\n| x | 1.00 ± 2.00 | 0.42 ± 0.11 |\n    y      90.00 ± 2.00   3.00 ± 4.00\n"
    record = Record("file", "| t |", {"x": ["c"], "y": ["a", "b"]})
    expected = "| t |\n| x | 1.00 ± 0.00 | 0.42 ± 0.11 |\n    y      5.00 ± 10.25  97.00 ± 0.10\n"
    assert renewed(table, record) == expected
    with pytest.raises(ValueError, match="0 lines begin with"):
        renewed(table, Record("file", "| u |", {}))
    with pytest.raises(ValueError, match="0 figures of z, not 1"):
        renewed(table, Record("file", "| t |", {"z": ["a"]}))
