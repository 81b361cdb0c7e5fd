"""The mutation score counts what it says; mutants themselves are run by hand (mutate.py)."""

import tomllib

import pytest

from . import mutate
from .checker import require
from .mutants import Mutant, mutants_of

# ruff: noqa: E501 (a line a rule)

require()

KERNEL = """\
constexpr unsigned kAll = 0xffffffffu;
// a comment: x[i] < n
__global__ void kernel(const float* x, float* sum, int n) {
  for (int i = threadIdx.x; i < n; i += 32) {
    if (i % 2 == 0 && n > 1) y[i * stride + 1] += fmaxf(x[i], 0.0f);
  }
  __syncthreads();
  __threadfence();
  atomicAdd(&sum[0], warp_max(-INFINITY) - __shfl_xor_sync(kAll, y[0], 16));
}
"""


@pytest.mark.parametrize(
    ("rule", "before", "after"),
    [
        ("barrier dropped", "__syncthreads();", ";"),
        ("barrier dropped", "__syncwarp(mask);", ";"),
        ("fence dropped", "__threadfence();", ";"),
        ("mask narrowed", "constexpr unsigned kAll = 0xffffffffu;", "constexpr unsigned kAll = 0x7fffffffu;"),
        ("shuffle changed", "__shfl_xor_sync(kAll, x, 1);", "__shfl_down_sync(kAll, x, 1);"),
        ("comparison widened or narrowed", "for (int i = 0; i < n; ++i) {", "for (int i = 0; i <= n; ++i) {"),
        ("comparison negated", "return a == b;", "return a != b;"),
        ("and for or", "return a && b;", "return a || b;"),
        ("accumulation to assignment", "sum += x;", "sum = x;"),
        ("sum and difference swapped", "return a + b;", "return a - b;"),
        ("product and quotient swapped", "return a / b;", "return a * b;"),
        ("remainder to quotient", "return a % b;", "return a / b;"),
        ("stride off by one", "return n * C + c;", "return n * (C + 1) + c;"),
        ("index off by one", "y = x[i];", "y = x[i + 1];"),
        ("index off by one", "y = x[i];", "y = x[i - 1];"),
        ("min and max swapped", "y = fmaxf(a, b);", "y = fminf(a, b);"),
        ("min and max swapped", "y = min(a, b);", "y = max(a, b);"),
        ("identity of a reduction", "float y = -INFINITY;", "float y = 0;"),
        ("constant changed", "y = x + 16;", "y = x + 8;"),
        ("constant changed", "y = x + 0.0f;", "y = x + 1.0f;"),
        ("condition always true", "if (i < f(n)) return;", "if (true) return;"),
        ("condition always false", "if (i < f(n)) return;", "if (false) return;"),
        ("atomic to plain", "atomicAdd(&x[f(i, 1)], y);", "(*(&x[f(i, 1)]) += (y));"),
    ],
)  # fmt: skip
def test_rules(rule, before, after):
    made = mutants_of("kernel.cu", f"{before}\n")
    assert (rule, after) in {(mutant.rule, mutant.after) for mutant in made}


def test_comments_steps_and_tuned_constants_are_left_alone():
    mutants = mutants_of("kernel.cu", KERNEL)
    assert not [m for m in mutants if m.line == 2]
    assert "for (int i = threadIdx.x; i < n; i = 32) {" not in [m.after for m in mutants]
    assert {m.rule for m in mutants if m.line == 1} == {"mask narrowed"}


def test_a_mutant_changes_its_line_only():
    lines = KERNEL.splitlines()
    for mutant in mutants_of("kernel.cu", KERNEL):
        changed = mutant.apply(KERNEL).splitlines()
        different = [
            i for i, pair in enumerate(zip(lines, changed, strict=True), 1) if pair[0] != pair[1]
        ]
        assert different == [mutant.line]
        assert changed[mutant.line - 1].split() == mutant.after.split()


def some_mutants(count: int) -> list[Mutant]:
    return [Mutant("k.cu", "rule", i, i, i + 1, "x", f"before {i}", "after") for i in range(count)]


class FakeLaboratory:
    """Every fifth mutant does not compile, every tenth survives."""

    def __init__(self) -> None:
        self.examined: list[Mutant] = []

    def examine(self, mutant: Mutant) -> mutate.Result:
        self.examined.append(mutant)
        if mutant.line % 5 == 4:
            return mutate.Result("does not compile")
        return mutate.Result("survived" if mutant.line % 10 == 0 else "checker", "race at x")


def test_enough_mutants_are_examined_and_none_twice(tmp_path):
    mutants = some_mutants(100)
    ledger = mutate.Ledger(tmp_path / "ledger.jsonl")
    results = mutate.examine_enough(mutants, 20, 2, FakeLaboratory(), ledger)
    assert len(mutate.counted(results)) == 20
    again, more = mutate.Ledger(tmp_path / "ledger.jsonl"), FakeLaboratory()
    assert mutate.examine_enough(mutants, 20, 2, more, again) == results
    assert more.examined == []
    assert len(mutate.counted(mutate.examine_enough(mutants, 1000, 2, more, again))) == 80
    assert len(more.examined) == 100 - len(results)


def report_of(declared_lines, capsys):
    laboratory = FakeLaboratory()
    results = {mutant: laboratory.examine(mutant) for mutant in some_mutants(60)}
    declared = {("k.cu", f"before {line}", "after") for line in declared_lines}
    return mutate.report(results, declared), capsys.readouterr().out


def test_report(capsys):
    problems, output = report_of([0, 10], capsys)
    assert problems == []
    assert "score 91.3%: 42 of 46 killed, beside 2 declared equivalent" in output
    assert "survived k.cu:20 (rule)\n  - before 20\n  + after" in output
    assert "k.cu:10 " not in output


def test_a_low_score_is_a_problem(capsys):
    assert report_of([], capsys)[0] == ["less than 90% are killed"]


def test_equivalents_are_checked(capsys):
    problems, _ = report_of([0, 10, 1], capsys)
    assert ["killed by checker" in problem for problem in problems] == [True]
    problems, _ = report_of([0, 10, 20, 30, 40, 50], capsys)
    assert problems == ["more than 10% are declared equivalent"]


def test_headers_of_one_kernel_alone():
    found = mutate.own_headers("csrc/kernels/cuda/mutual_information.cu")
    assert "csrc/kernels/mutual_information.h" in found
    assert "csrc/kernels/cuda/numeric.cuh" not in found


def test_the_committed_list_is_well_formed():
    listed = tomllib.loads(mutate.EQUIVALENT.read_text())["mutant"]
    files = {entry["file"] for entry in listed}
    assert len(files) >= 2
    known = set()
    for file in files:
        made = mutants_of(file, (mutate.compiling.REPOSITORY / file).read_text())
        known |= {(mutant.file, mutant.before, mutant.after) for mutant in made}
    assert set(mutate.declared_equivalent(sorted(files))) <= known, "a mutant is no longer made"
