"""A device that is not the CPU, for machines that have none: its tensors lie in memory here but say ``elsewhere:0``.

Torch lets a backend be written in Python (PrivateUse1). What this one adds is what CUDA would refuse: an operation on
tensors of two devices, numbers drawn there from a generator of the CPU, and NumPy on a tensor that lies elsewhere. An
index may lie on the CPU, and so may one number in an operation by element, as under CUDA. Once on, the device cannot be
taken off, so it is used in a process of its own:

    python tests/another_device.py sweep

prints, as its last line, what small cells of that study gave on both devices, as JSON.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import tempfile
from typing import Any

import safetensors.torch
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "elsewhere"
HERE, THERE = torch.device("cpu"), f"{NAME}:0"
CROSSING = {"to", "_to_copy", "copy_"}
"""Operations that carry a tensor from one device to the other."""
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operations whose indices, their second argument, may lie on the CPU."""
WITH_A_NUMBER = {"masked_fill", "masked_fill_", "fill", "fill_", "where"}
"""Operations that take one number from the CPU, besides those by element."""
made = 0
"""Tensors that were put there so far."""


class Elsewhere(torch.Tensor):
    """A tensor that says it lies elsewhere; ``here`` is what it holds."""

    here: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: torch.Tensor) -> Elsewhere:
        global made
        made += 1
        layout = {"strides": here.stride(), "storage_offset": here.storage_offset(), "dtype": here.dtype}
        tensor = torch.Tensor._make_wrapper_subclass(cls, here.size(), device=torch.device(THERE), **layout)
        tensor.here = here
        return tensor

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return compute(operation, *args, **(kwargs or {}))


def compute(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """Do ``operation`` here; its results lie where CUDA's would. ``RuntimeError`` for what CUDA refuses."""
    leaves, name = tree_leaves((args, kwargs)), operation._schema.name.partition("::")[2]
    there = [leaf for leaf in leaves if isinstance(leaf, Elsewhere)]
    asked = [leaf for leaf in leaves if isinstance(leaf, torch.device)]
    away = asked[0].type == NAME if asked else bool(there)
    if there and name not in CROSSING:
        _refuse_two_devices(operation, name, (args[0], *args[2:], kwargs) if name in INDEXING else (args, kwargs))
    if away:
        _refuse_generator(leaves)
    known = {id(tensor.here): tensor for tensor in there}

    def inside(leaf: Any) -> Any:
        return leaf.here if isinstance(leaf, Elsewhere) else HERE if isinstance(leaf, torch.device) else leaf

    def outside(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor) or not away:
            return leaf
        # Torch conjugates lazily, by a bit that kernels below a Python device do not look at.
        return known[id(leaf)] if id(leaf) in known else Elsewhere(leaf.resolve_conj().resolve_neg())

    with torch.inference_mode(False), torch.no_grad():
        result = operation(*tree_map(inside, args), **tree_map(inside, kwargs))
        if any(tensor.shape != tensor.here.shape for tensor in there):
            raise NotImplementedError(f"{operation} changed a shape in place, which this device cannot show.")
        return args[0] if name == "copy_" else tree_map(outside, result)


def _refuse_two_devices(operation: Any, name: str, arguments: Any) -> None:
    here = [
        leaf for leaf in tree_leaves(arguments) if isinstance(leaf, torch.Tensor) and not isinstance(leaf, Elsewhere)
    ]
    by_element = torch.Tag.pointwise in operation.tags or name.startswith("_foreach") or name in WITH_A_NUMBER
    if any(tensor.dim() or not by_element for tensor in here):
        raise RuntimeError(f"{operation} was asked for tensors on {THERE} and on the CPU: all must be on one device.")


def _refuse_generator(arguments: Any) -> None:
    if any(isinstance(argument, torch.Generator) for argument in arguments):
        raise RuntimeError(f"A generator of the CPU cannot draw on {THERE}: draw on the CPU and move.")


class Module(_DummyBackendModule):
    """What torch asks of a device: its random state, of which this one has none."""

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.zeros(1, dtype=torch.uint8)

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        pass


class Placed(TorchFunctionMode):
    """Tensors are made here and carried there: torch makes some by a change of shape, or past the dispatcher."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.tolist:
            return function(args[0].cpu())
        if function is torch.Tensor.__getitem__ and isinstance(args[1], list):
            return function(args[0], torch.tensor(args[1]))
        device = kwargs.get("device")
        new = device is not None and not any(isinstance(arg, torch.Tensor) for arg in args)
        if new and torch.device(device).type == NAME:
            _refuse_generator(kwargs.values())
            return function(*args, **kwargs | {"device": HERE}).to(device)
        return function(*args, **kwargs)


def _overload(name: str) -> Any:
    packet, _, overload = name.partition(".")
    return getattr(getattr(torch.ops.aten, packet), overload or "default")


def switch_on() -> None:
    """Let torch know the device, for as long as this process lives, and so the libraries that say how it computes."""
    _setup_privateuseone_for_python_backend(NAME, backend_module=Module())
    switch_on.library = torch.library.Library("_", "IMPL")
    switch_on.library.fallback(compute, "PrivateUse1")
    switch_on.aten = torch.library.Library("aten", "IMPL")
    for name in ("arange", "arange.start", "arange.start_step"):  # made by a change of shape in place, otherwise
        switch_on.aten.impl(name, functools.partial(compute, _overload(name)), "PrivateUse1")
    Placed().__enter__()
    save, load = safetensors.torch.save_file, safetensors.torch.load_file  # which read memory by its address

    def save_from_here(tensors: dict[str, torch.Tensor], *args: Any, **kwargs: Any) -> None:
        save({name: tensor.cpu() for name, tensor in tensors.items()}, *args, **kwargs)

    def load_there(path: Any, device: Any = HERE) -> dict[str, torch.Tensor]:
        return {name: tensor.to(device) for name, tensor in load(path).items()}

    safetensors.torch.save_file, safetensors.torch.load_file = save_from_here, load_there


def sweep(device: str) -> Any:
    from test_marker_cell import cells

    from helpers.studies.marker.cell import run_cells

    return run_cells(cells(device=device, lr=[1e-3, 3e-3], together=2, lora_dropout=0.1))


def length_ablation(device: str) -> Any:
    from test_lengths import cells

    from helpers.studies.marker.lengths.cell import run_cells

    return run_cells(cells(device=device))


def logit_lens_diff(device: str) -> Any:
    from test_actdiff_study import SMALL

    from helpers.studies.actdiff.cell import run_cells
    from helpers.studies.actdiff.params import LensCell

    return run_cells([LensCell(organism="lora", seed=0, device=device, **SMALL)])


def triangulation(device: str) -> Any:
    from test_eqprop_experiment import cells

    from helpers.studies.eqprop.experiment import run_cells

    return run_cells(cells(experiment=["exp1", "exp6"], device=device))


def latentwire(device: str) -> Any:
    from latentwire_fixture import cells

    from helpers.studies.latentwire.cell import run_cells

    return run_cells(cells(device=device))


STUDIES = {study.__name__: study for study in (sweep, length_ablation, logit_lens_diff, triangulation, latentwire)}


def main(study: str) -> None:
    torch.set_num_threads(1)
    switch_on()
    found = {}
    for device in ("cpu", THERE):
        with tempfile.TemporaryDirectory() as folder:
            os.environ |= {"CLAIMBOOK_OUTPUTS": folder, "CLAIMBOOK_PUBLISHED": folder + "/published"}
            records = STUDIES[study](device)
            found[device] = [{"metrics": one.metrics, "made": made} for one in records]
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
