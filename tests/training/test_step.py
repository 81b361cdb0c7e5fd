"""A step that is compiled, or recorded whole and replayed: the run is that of eager steps."""

import pytest
import torch
from op_recorder import OpRecorder
from tiny_runs import tiny

from fastssl.algorithms.ranks import Ranks
from fastssl.errors import InputError
from fastssl.recipes import experiment, recipe
from fastssl.recipes.config import override
from fastssl.recipes.runs import Run, fit, resume
from fastssl.training import step as steps
from fastssl.training.record import read_metrics

STEPS = 12
LONG = {  # passes of three steps, so that ramps rise; everything is logged
    "data.validation": 900,
    "data.unlabeled_rows": 172,
    "steps": STEPS,
    "log_every": 1,
    "eval.every": STEPS,
    "checkpoint.every": STEPS,
}
ALGORITHMS = (
    *("supervised", "muscle", "muscle+mean-teacher", "fixmatch", "ccn"),
    "mean-teacher+label-propagation",
)


def losses(run: Run) -> list[dict[str, float]]:
    """What every step logged of its loss."""
    return [
        {key: value for key, value in row.items() if key == "loss" or key.startswith("term/")}
        for row in read_metrics(run.folder.metrics_jsonl)
    ]


def weights(run: Run) -> list[torch.Tensor]:
    return list(run.experiment.algorithm.state_dict().values())


@pytest.fixture
def recorders(monkeypatch) -> list[OpRecorder]:
    """Every recorder that a run with compile=graph has, on the CPU."""
    made = []

    def recorder() -> OpRecorder:
        made.append(OpRecorder())
        return made[-1]

    monkeypatch.setattr(steps, "CudaGraph", recorder)
    monkeypatch.setattr(experiment, "check_compiler", lambda *_: None)
    return made


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_recorded_step_is_the_step(tmp_path, recorders, algorithm):
    """Bit for bit, while ramps, averages and batches change: nothing of a step is in Python."""
    found = {}
    for compiler in ("none", "graph"):
        found[compiler] = tiny(algorithm, tmp_path / compiler, compile=compiler, **LONG)
        fit(found[compiler])
    stages = 2 if algorithm.endswith("label-propagation") else 1
    assert sum(recorder.replays for recorder in recorders) == STEPS - stages * steps.WARM_UP_STEPS
    assert losses(found["none"]) == losses(found["graph"])
    for eager, replayed in zip(*map(weights, found.values()), strict=True):
        assert torch.equal(eager, replayed)


def test_the_recorder_sees_a_number_of_python(tmp_path, recorders, monkeypatch):
    """A weight that an algorithm kept on the host would stay what it was."""
    found = {}
    for compiler in ("none", "graph"):
        run = found[compiler] = tiny("muscle", tmp_path / compiler, compile=compiler, **LONG)
        algorithm, calls = run.experiment.algorithm, []
        original = algorithm.objective

        def objective(logits, batch, original=original, calls=calls):
            calls.append(None)
            loss = original(logits, batch)
            return type(loss)(loss.total * len(calls), loss.terms)

        monkeypatch.setattr(algorithm, "objective", objective)
        fit(run)
    assert losses(found["none"]) != losses(found["graph"])


def test_a_number_of_the_state_is_refused_where_it_would_stay(tmp_path, recorders, monkeypatch):
    run = tiny("muscle", tmp_path, compile="graph", **LONG)
    seen = []
    monkeypatch.setattr(
        run.experiment.algorithm, "after_step", lambda state: seen.append(state.step)
    )
    with pytest.raises(InputError, match=r"compile: graph replays after_step, where state\.step"):
        fit(run)
    assert seen == [1, 2, 3]


def test_the_optimiser_is_recorded_unless_python_moves_its_numbers(tmp_path, recorders):
    """Adam's beta1, which CCN's recipe takes down: then it runs after each replay."""
    found = {}
    for algorithm in ("muscle", "ccn"):
        fit(tiny(algorithm, tmp_path / algorithm, compile="graph", **LONG))
        names = [str(function) for function, *_ in recorders[-1].calls]
        found[algorithm] = [name for name in names if "fused" in name]
        assert any("augment" in name for name in names)
    assert found == {"muscle": ["aten._fused_sgd_.tensor_lr"], "ccn": []}


@pytest.mark.skipif(not steps.has_cpp_compiler(), reason="no C++ compiler")
def test_inductor_stays_near_eager_and_resumes(tmp_path):
    found = {}
    for compiler in ("none", "inductor"):
        found[compiler] = tiny("muscle", tmp_path / compiler, compile=compiler, log_every=1)
        fit(found[compiler])
    pairs = zip(*(losses(run) for run in found.values()), strict=True)
    for eager, compiled in pairs:
        assert compiled == pytest.approx(eager, rel=1e-4, abs=1e-5)
    with pytest.raises(InputError, match="the run has compile = inductor, not none"):
        resume(found["inductor"].folder.path, "muscle", {"compile": "none"})


def test_on_a_gpu(gpu, tmp_path):
    """One CUDA graph: losses near those of eager steps, from other images at every replay."""
    found = {}
    for compiler in ("none", "graph"):
        options = {**LONG, "compile": compiler, "device": str(gpu)}
        found[compiler] = tiny("muscle+mean-teacher", tmp_path / compiler, **options)
        fit(found[compiler])
    eager, replayed = (losses(run) for run in found.values())
    for one, other in zip(eager, replayed, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    assert len({row["loss"] for row in replayed}) == STEPS


def refused(compiler, algorithm="muscle", device="cpu", ranks=1, **changes):
    config = override(recipe(algorithm, "digits"), {"data.labels": 20, **changes})
    built = experiment.build(config).algorithm
    steps.check_compiler(compiler, built, torch.device(device), Ranks(0, ranks))


def test_what_cannot_be_had_is_refused(monkeypatch):
    with pytest.raises(InputError, match="compile: unknown name 'cuda'"):
        refused("none", compile="cuda")
    with pytest.raises(InputError, match="records what a GPU does, and the device is cpu"):
        refused("graph")
    with pytest.raises(InputError, match="one process, not in 2"):
        refused("graph", device="cuda", ranks=2)
    with pytest.raises(InputError, match=r"exact adversarial direction.*algorithm\.adversarial=0"):
        refused("inductor", "ccn")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(InputError, match=r"needs a .* compiler, and there is none"):
        refused("inductor")
    refused("inductor", device="cuda")
    refused("none")
