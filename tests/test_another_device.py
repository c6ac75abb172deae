"""Every study on a device that is not the CPU: nothing is left behind, and the numbers are those of the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import another_device
import pytest
from child import python_path

from helpers.base import files

pytestmark = pytest.mark.unit


@pytest.mark.check
@pytest.mark.parametrize("study", another_device.STUDIES)
def test_a_study_on_another_device_gives_the_metrics_of_the_cpu(study: str) -> None:
    here, there = _run(study).values()
    assert len(here) == len(there) > 0
    assert here[-1]["made"] == 0 and there[-1]["made"] > 1000, "the work was not done where it was asked for"
    for one, other in zip(here, there, strict=True):
        assert one["metrics"].keys() == other["metrics"].keys()
        for name, metric in one["metrics"].items():
            if metric["unit"] != "tokens/s":  # which is the only one that is timed
                found = other["metrics"][name]
                assert found["value"] == pytest.approx(metric["value"], rel=1e-3, abs=1e-5), name
                assert (found.get("n"), found.get("k")) == (metric.get("n"), metric.get("k")), name


def test_what_cuda_refuses_is_refused() -> None:
    code = """if True:
        import another_device, torch
        another_device.switch_on()
        there, draw = torch.arange(3.0, device=another_device.THERE), torch.Generator()
        print((there * torch.tensor(2.0))[torch.tensor([1])].tolist(), there.device)
        for refused in (
            lambda: there + torch.ones(3), lambda: torch.ones(3) @ there, lambda: there.numpy(),
            lambda: torch.stack([there[0], torch.tensor(1.0)]), lambda: torch.ones(3)[there.long()],
            lambda: there.index_put_((torch.tensor([0]),), torch.ones(1)),
            lambda: there.index_select(0, torch.tensor(0)), lambda: there.normal_(generator=draw),
            lambda: torch.rand(3, device=there.device, generator=draw),
        ):
            try:
                print(refused())
            except (RuntimeError, TypeError):
                print("refused")
    """
    assert _python("-c", code).split() == ["[2.0]", "elsewhere:0", *["refused"] * 9]


def test_a_process_of_a_test_imports_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    assert _python("-c", "import helpers; print(*helpers.__path__)").split() == [str(files.ROOT / "src/helpers")]
    assert python_path().split(os.pathsep)[-1] == "/elsewhere"


def _run(study: str) -> dict[str, list[dict[str, dict]]]:
    return json.loads(_python(another_device.__file__, study).splitlines()[-1])


def _python(*arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": python_path(), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
