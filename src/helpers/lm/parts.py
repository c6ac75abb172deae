"""The parts of a causal language model: its decoder, and a head that does all that its own forward does."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from helpers.base.errors import ModelError
from helpers.lm.modes import evaluating

_KIND, _WIDE = "claimbook_head", "claimbook_wide"
_TRIED = (5, 7, 11)
"""Tokens on which a head is compared with the model's own forward."""


class _Handed(BaseModelOutputWithPast):
    """What a decoder would have returned: hidden states, and nothing else that a forward may ask for."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


class WholeHead(nn.Module):
    """Hidden states [..., C] to logits [..., V] by the model's own forward, with the decoder left out.

    So whatever stands behind the linear head, such as a scale or a soft cap, is in it. ``weight`` is the linear head's.
    """

    def __init__(self, model: PreTrainedModel, decoder: PreTrainedModel, linear: nn.Module):
        super().__init__()
        # In a tuple, which nn.Module does not register: the parts belong to the model, not to this view of them.
        self.parts = (model, decoder, linear)

    @property
    def weight(self) -> Tensor:
        return self.parts[2].get_parameter("weight")

    def forward(self, hidden: Tensor) -> Tensor:
        model, decoder, _ = self.parts
        flat: Any = hidden.reshape(1, -1, hidden.shape[-1])
        tokens = torch.zeros(flat.shape[:2], dtype=torch.long, device=flat.device)
        with _replaced(decoder, lambda *_args, **_kwargs: _Handed(last_hidden_state=flat)):
            logits = model(input_ids=tokens, use_cache=False).logits
        return logits.reshape(*hidden.shape[:-1], logits.shape[-1])

    def behind(self, logits: Tensor) -> Tensor:
        """Return what the model's own forward makes of the logits [..., V] of its linear layer."""
        with _replaced(self.parts[2], lambda given: given):
            return self(logits)


class WideHead(nn.Module):
    """Hidden states [..., C] in bf16 to fp32 logits [..., V], by an fp32 copy of the weights of the linear head.

    A product in bf16 rounds every logit to eight bits, by up to 0.06 nats at a logit of 16. ``whole`` is the head of a
    model that has more behind its linear layer.
    """

    def __init__(self, linear: nn.Linear, whole: WholeHead | None):
        super().__init__()
        self.parts = (linear, whole)  # not registered, as in WholeHead

    @property
    def weight(self) -> Tensor:
        return self.parts[0].weight

    @property
    def behind(self) -> Callable[[Tensor], Tensor] | None:
        """As of a WholeHead; ``None`` where nothing stands behind the linear layer."""
        whole = self.parts[1]
        return None if whole is None else whole.behind

    def forward(self, hidden: Tensor) -> Tensor:
        linear, whole = self.parts
        logits = functional.linear(hidden.float(), *_in_fp32(linear))
        return logits if whole is None else whole.behind(logits)


def _in_fp32(linear: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Return weight and bias in fp32; of frozen ones a copy that is kept as long as they stay what they are."""
    given = (linear.weight, linear.bias)
    if any(one is not None and one.requires_grad for one in given):
        return linear.weight.float(), None if linear.bias is None else linear.bias.float()
    versions = [None if one is None else (one.data_ptr(), one._version) for one in given]
    kept = vars(linear).get(_WIDE)
    if kept is None or kept[0] != versions:
        with torch.inference_mode(False), torch.no_grad():  # a copy made in inference mode could not train an adapter
            kept = versions, (linear.weight.float(), None if linear.bias is None else linear.bias.float())
        vars(linear)[_WIDE] = kept
    return kept[1]


@contextlib.contextmanager
def _replaced(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let ``module`` compute ``forward`` inside the block."""
    vars(module)["forward"] = forward
    try:
        yield
    finally:
        del vars(module)["forward"]


def base_of(model: nn.Module) -> Any:
    """Return the model below a PEFT wrapper, or ``model`` itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def bare_parts(model: nn.Module) -> tuple[PreTrainedModel, nn.Linear]:
    """Return the decoder and the linear layer of the head, without asking what stands behind it."""
    base = base_of(model)
    named = [base.get_decoder()] if hasattr(base, "get_decoder") else []
    named += [getattr(base, name, None) for name in ("base_model", "model", "transformer", "backbone")]
    decoder = next((one for one in named if isinstance(one, PreTrainedModel) and one is not base), None)
    linear = base.get_output_embeddings() if hasattr(base, "get_output_embeddings") else None
    if decoder is None or linear is None:
        raise ModelError(f"{type(base).__name__} has no decoder and head of its own. Use a causal language model.")
    return decoder, linear


def decoder_and_head(model: nn.Module) -> tuple[PreTrainedModel, nn.Linear | WholeHead | WideHead]:
    """Return the decoder (tokens to hidden states) and the head (hidden states to logits) of a causal LM.

    ``head(decoder(tokens).last_hidden_state)`` is what ``model(tokens).logits`` is, which is tried once for each model.
    On a CPU the logits of a model in bf16 are fp32 (on CUDA an fp32 head would take longer than the layers).
    """
    base, (decoder, linear) = base_of(model), bare_parts(model)
    kinds: dict[str, Any] = {"linear": linear, "whole": WholeHead(base, decoder, linear)}
    if _KIND not in vars(base):
        vars(base)[_KIND] = _kind(base, decoder, kinds)
    head = kinds[vars(base)[_KIND]]
    # An adapter on the head has another class, and adds to the product what a copy of the weights would leave out.
    if type(linear) is nn.Linear and linear.weight.dtype == torch.bfloat16 and linear.weight.device.type == "cpu":
        head = WideHead(linear, head if isinstance(head, WholeHead) else None)
    return decoder, head


def _kind(base: Any, decoder: PreTrainedModel, kinds: dict[str, Any]) -> str:
    tokens = _tokens(decoder)
    with evaluating(base), torch.no_grad():
        wanted = base(input_ids=tokens, use_cache=False).logits.float()
        hidden = decoder(input_ids=tokens, use_cache=False).last_hidden_state
        for name, head in kinds.items():
            logits = head(hidden).float()
            # A soft cap changes small logits by less than any tolerance, so the linear head must give the same bits.
            same = torch.equal if name == "linear" else torch.allclose
            if logits.shape == wanted.shape and same(logits, wanted):
                return name
    raise ModelError(
        f"The forward pass of {type(base).__name__} is not its decoder and its head, one behind the other, so nothing "
        "can be computed from its hidden states. Use another model."
    )


def _tokens(decoder: PreTrainedModel) -> Tensor:
    return torch.tensor([_TRIED], device=next(decoder.parameters()).device) % decoder.config.vocab_size


def blocks(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of the decoder, in order; ``ModelError`` names a decoder that has no list of them."""
    decoder, _ = bare_parts(model)
    depth = decoder.config.num_hidden_layers
    lists = [part for part in decoder.children() if isinstance(part, nn.ModuleList) and len(part) == depth]
    if len(lists) != 1:
        raise ModelError(f"{type(decoder).__name__} has no list of its {depth} layers. Use another architecture.")
    return list(lists[0])


def final_norm(model: nn.Module) -> nn.Module:
    """Return the module between the last block and the head; ``nn.Identity`` where there is none.

    It is the one that turns what the last block hands on into the decoder's output, on a few tokens. Raises
    ``ModelError`` by the decoder's name where no single module does.
    """
    (decoder, _), last = bare_parts(model), blocks(model)[-1]
    calls: list[tuple[nn.Module, Any, Any]] = []

    def note(module: nn.Module, given: tuple[Any, ...], made: Any) -> None:
        calls.append((module, given[0] if given else None, made))

    watched = [last, *(part for part in decoder.children() if not isinstance(part, nn.ModuleList))]
    handles = [part.register_forward_hook(note) for part in watched]
    try:
        with evaluating(decoder), torch.no_grad():
            output = decoder(input_ids=_tokens(decoder), use_cache=False).last_hidden_state
    finally:
        for handle in handles:
            handle.remove()
    handed = next(residual(made) for module, _, made in calls if module is last)
    if torch.equal(handed, output):
        return nn.Identity()
    for module, *states in calls:
        if all(isinstance(state, Tensor) for state in states) and all(map(torch.equal, states, (handed, output))):
            return module
    raise ModelError(
        f"Between the last layer of {type(decoder).__name__} and its head lies more than one norm, so no single "
        "activation can be read by its head. Use another architecture."
    )


def residual(output: Any) -> Tensor:
    """Return the residual stream in what a block returned: the tensor, or the first of several values."""
    return output if isinstance(output, Tensor) else output[0]
