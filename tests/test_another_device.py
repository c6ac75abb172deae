"""Every study on a device that is not the CPU: nothing is left behind, and the numbers are those of the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import another_device
import pytest

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("study", another_device.STUDIES)
def test_a_study_on_another_device_gives_the_metrics_of_the_cpu(study: str) -> None:
    here, there = _run(study).values()
    assert len(here) == len(there) > 0
    for one, other in zip(here, there, strict=True):
        assert one.keys() == other.keys()
        for name, metric in one.items():
            if metric["unit"] != "tokens/s":  # which is the only one that is timed
                assert other[name]["value"] == pytest.approx(metric["value"], rel=1e-3, abs=1e-5), name


def test_what_cuda_refuses_is_refused() -> None:
    code = """if True:
        import another_device, torch
        another_device.switch_on()
        there = torch.arange(3.0, device=another_device.THERE)
        print((there * 2)[torch.tensor([1])].tolist(), there.device)
        for refused in (lambda: there + torch.ones(3), lambda: there.numpy(), lambda: torch.ones(3) @ there):
            try:
                refused()
            except (RuntimeError, TypeError) as error:
                print(type(error).__name__)
    """
    assert _python("-c", code).split() == ["[2.0]", "elsewhere:0", "RuntimeError", "RuntimeError", "RuntimeError"]


def _run(study: str) -> dict[str, list[dict[str, dict]]]:
    return json.loads(_python(another_device.__file__, study).splitlines()[-1])


def _python(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
