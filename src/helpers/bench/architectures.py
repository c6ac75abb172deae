"""Architectures of transformers, each made in a moment as a tiny model of random weights."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

_SHAPE: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
_LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_ROUTED = _MOE | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_LATENT = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
    "num_key_value_heads": 4, "head_dim": ...,
}  # fmt: skip
_SLIDING = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]}
_MAMBA = {
    "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}  # fmt: skip

SETTINGS: dict[str, dict[str, Any]] = {
    "afmoe": _MOE | _SLIDING | {"num_dense_layers": 1},
    "apertus": {},
    "arcee": {},
    "bamba": _MAMBA | {"mamba_n_heads": 8, "attn_layer_indices": [1]},
    "bert": {},
    "biogpt": {},
    "bitnet": {},
    "bloom": {},
    "codegen": {"n_embd": 32, "n_head": 4, "n_layer": 2, "rotary_dim": 4, "n_positions": 512},
    "cohere": {"logit_scale": 0.25},
    "cohere2": _SLIDING | {"logit_scale": 0.25},
    "cpmant": {},
    "ctrl": {},
    "cwm": _SLIDING,
    "deepseek_v2": _ROUTED | _LATENT | {"topk_method": "greedy"},
    "deepseek_v3": _ROUTED | _LATENT | {"head_dim": None},
    "diffllama": {},
    "doge": {},
    "dots1": _ROUTED | {"num_key_value_heads": 4, "n_shared_experts": 1},
    "ernie4_5": {},
    "ernie4_5_moe": _MOE | {"moe_num_experts": 4, "moe_k": 2, "moe_layer_start_index": 1},
    "exaone4": _SLIDING,
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "head_dim": ...},
    "falcon_h1": _MAMBA | {"lm_head_multiplier": 0.5},
    "falcon_mamba": {"state_size": 8},
    "gemma": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    "gemma3_text": _SLIDING,
    "gemma3n_text": _SLIDING | {
        "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8, "num_kv_shared_layers": 0,
        "laurel_rank": 4, "altup_num_inputs": 2, "activation_sparsity_pattern": [0.0, 0.0],
    },
    "gemma4_text": _SLIDING | {
        "vocab_size_per_layer_input": 320, "hidden_size_per_layer_input": 8, "global_head_dim": 8,
    },
    "glm": {},
    "glm4": {},
    "glm4_moe": _ROUTED | {"n_shared_experts": 1},
    "gpt2": {"n_positions": 512},
    "gpt_bigcode": {"n_positions": 512},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8, "num_heads": 4},
    "gpt_neox": {},
    "gpt_oss": _MOE | _SLIDING,
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "attention_multiplier": 0.25},
    "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2, "logits_scaling": 8.0},
    "granitemoehybrid": _MAMBA | _MOE | {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"]},
    "helium": {},
    "hunyuan_v1_dense": {},
    "hunyuan_v1_moe": _MOE,
    "jamba": _MOE,
    "jetmoe": _MOE,
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "lfm2_moe": _MOE | {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "llama": {},
    "llama4_text": _MOE,
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "minicpm3": _LATENT,
    "minimax": _MOE,
    "minimax_m2": _MOE,
    "ministral": {},
    "mistral": {"sliding_window": 8},
    "mixtral": _MOE | {"sliding_window": None},
    "modernbert-decoder": {"cls_token_id": 1, "sep_token_id": 2},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "nanochat": {},
    "nemotron": {},
    "nemotron_h": _MOE | {
        "mamba_num_heads": 4, "mamba_head_dim": 16, "ssm_state_size": 8, "n_groups": 1, "chunk_size": 8,
        "n_routed_experts": 4, "layers_block_type": ["mamba", "attention"],
    },
    "olmo": {},
    "olmo2": {},
    "olmo3": _SLIDING,
    "olmo_hybrid": {},
    "olmoe": _MOE,
    "openai-gpt": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "persimmon": {},
    "phi": {},
    "phi3": {"sliding_window": 8},
    "phimoe": _MOE,
    "qwen2": {},
    "qwen2_moe": _MOE | {"shared_expert_intermediate_size": 16},
    "qwen3": {},
    "qwen3_5_moe_text": _LINEAR | _MOE | {
        "layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 16,
    },
    "qwen3_5_text": _LINEAR | {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_moe": _MOE,
    "qwen3_next": _LINEAR | _MOE | {
        "layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 16,
    },
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "num_hidden_layers": 3},
    "rwkv": {},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
    "vaultgemma": {},
    "xglm": {},
    "xlnet": {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "max_position_embeddings": ...},
    "xlstm": {},
    "zamba2": {
        "mamba_d_state": 8, "mamba_ngroups": 1, "n_mamba_heads": 4, "mamba_headdim": 16, "chunk_size": 8,
        "layers_block_type": ["mamba", "hybrid"], "layer_types": ["mamba", "hybrid"], "num_mem_blocks": 1,
        "adapter_rank": 4,
    },
}  # fmt: skip
"""Settings by which each is made tiny, by model type. What a type does not name stays as it is; ``...`` leaves out."""


def random_model(kind: str, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """Return a causal LM of model type ``kind``, of random weights with unequal logits; ``...`` leaves a setting out.

    Settings stand above those of a tiny shape; ``SETTINGS`` are not among them unless given.
    """
    asked = {name: value for name, value in (_SHAPE | settings).items() if value is not ...}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **asked), dtype=torch.float32)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 2:
                    weight.normal_(std=weight.shape[1] ** -0.5)
    return model.eval()
