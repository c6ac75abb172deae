"""Settings by which each architecture is made tiny. What a model type does not name is left out of its config."""

from __future__ import annotations

from typing import Any

_LINEAR = {
    "linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
_MOE = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
_MAMBA = {
    "mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1, "mamba_d_state": 8,
    "mamba_chunk_size": 8,
}  # fmt: skip

SETTINGS: dict[str, dict[str, Any]] = {
    "apertus": {},
    "arcee": {},
    "bamba": _MAMBA | {"mamba_n_heads": 8, "attn_layer_indices": [1]},
    "bloom": {},
    "cohere": {"logit_scale": 0.25},
    "cohere2": {"logit_scale": 0.25, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "deepseek_v3": {
        "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8,
        "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "first_k_dense_replace": 1, "head_dim": None, "num_key_value_heads": 4,
    },
    "exaone4": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "falcon": {"new_decoder_architecture": False, "multi_query": True, "head_dim": ...},
    "falcon_h1": _MAMBA | {"lm_head_multiplier": 0.5},
    "gemma": {},
    "gemma2": {"sliding_window": 8, "query_pre_attn_scalar": 8, "final_logit_softcapping": 3.0},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "glm4": {},
    "gpt2": {"n_positions": 512},
    "gpt_bigcode": {"n_positions": 512},
    "gpt_neox": {},
    "gpt_oss": _MOE | {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gptj": {"n_embd": 32, "n_layer": 2, "n_head": 4, "rotary_dim": 4, "n_positions": 512},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "attention_multiplier": 0.25},
    "granitemoehybrid": _MAMBA | _MOE | {"mamba_n_heads": 8, "layer_types": ["mamba", "attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"], "block_multiple_of": 8},
    "llama": {},
    "mamba": {"state_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "mistral": {"sliding_window": 8},
    "mixtral": _MOE | {"sliding_window": None},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512},
    "olmo": {},
    "olmo2": {},
    "olmo3": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "olmoe": _MOE,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {"sliding_window": 8},
    "qwen2": {},
    "qwen2_moe": _MOE | {"shared_expert_intermediate_size": 16},
    "qwen3": {},
    "qwen3_5_text": _LINEAR | {"layer_types": ["linear_attention", "full_attention"]},
    "qwen3_moe": _MOE,
    "qwen3_next": _LINEAR | _MOE | {
        "layer_types": ["linear_attention", "full_attention"], "shared_expert_intermediate_size": 16,
    },
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 8, "num_hidden_layers": 3},
    "seed_oss": {},
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {"sliding_window": None},
}  # fmt: skip
