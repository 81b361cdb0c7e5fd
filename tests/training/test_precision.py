"""bfloat16 around the losses: every algorithm trains, and its weights and moments stay float32."""

import json

import pytest
import torch
from tiny_runs import ALGORITHMS, tiny

from fastssl.errors import InputError
from fastssl.objectives.temporal_ensemble import TemporalEnsemble
from fastssl.recipes import recipe
from fastssl.recipes.config import override
from fastssl.recipes.runs import fit, resume
from fastssl.recipes.trained import load_trained
from fastssl.training.record import read_metrics


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bf16_stays_near_fp32(tmp_path, algorithm):
    losses, inputs = {}, []
    for precision in ("fp32", "bf16"):
        run = tiny(algorithm, tmp_path / precision, precision=precision, log_every=1)
        first = run.experiment.algorithm.network.extractor[0][0]
        first.register_forward_hook(lambda _, __, output: inputs.append(output.dtype))
        fit(run)
        rows = read_metrics(run.folder.metrics_jsonl)
        losses[precision] = torch.tensor([row["loss"] for row in rows])
        state = run.experiment.algorithm.state_dict()
        moments = [v for entry in run.optimizer.state.values() for v in entry.values()]
        kept = [x.dtype for x in (*state.values(), *moments) if x.is_floating_point()]
        assert set(kept) == {torch.float32}
    assert {torch.float32, torch.bfloat16} == set(inputs)
    difference = (losses["fp32"] - losses["bf16"]).abs()
    assert (difference > 0).any()
    assert difference[0] < 0.02 * losses["fp32"][0].abs() + 0.02


def test_a_run_says_its_precision_and_resumes_in_it(tmp_path):
    run = tiny("muscle", tmp_path, precision="bf16")
    fit(run)
    assert json.loads(run.folder.run_json.read_text())["config"]["precision"] == "bf16"
    assert load_trained(run.folder.path)[0].config.precision == "bf16"
    with pytest.raises(InputError, match="the run has precision = bf16, not fp32"):
        resume(run.folder.path, "muscle", {"precision": "fp32"})


def test_other_precisions_are_refused():
    with pytest.raises(InputError, match="precision: unknown name 'fp16'; did you mean 'bf16'"):
        override(recipe("muscle", "digits"), {"precision": "fp16"})


def test_an_ensemble_is_summed_in_float32_under_autocast():
    index, probabilities = torch.tensor([0, 0, 1]), torch.rand(3, 5)
    found = []
    for enabled in (False, True):
        ensemble = TemporalEnsemble(2, 5, 0.6)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            ensemble.update(probabilities, index)
        found.append(ensemble.mean)
    assert torch.equal(*found)
