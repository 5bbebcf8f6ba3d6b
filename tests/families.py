"""Tiny configurations of the model families that people fine-tune, as their config.json would say it: two layers, 320 words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIZE = {"num_hidden_layers": 2, "hidden_size": 64, "vocab_size": 320, "max_position_embeddings": 64}
TOKENS = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
HEADS = {"num_attention_heads": 2, "initializer_range": 0.1}
GROUPED = {**SIZE, **TOKENS, **HEADS, "intermediate_size": 96, "num_key_value_heads": 1, "head_dim": 32}
GEMMA = {**GROUPED, "query_pre_attn_scalar": 32, "sliding_window": 8, "tie_word_embeddings": True}
EXPERTS = {**GROUPED, "num_experts_per_tok": 2, "moe_intermediate_size": 32}


def family(model_type: str, architecture: str, *parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"model_type": model_type, "architectures": [architecture]}
    for part in (*parts, more):
        found |= part
    return found


OPT = {**SIZE, **TOKENS, "num_attention_heads": 2, "ffn_dim": 128, "init_std": 0.1, "dropout": 0.0}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
FAMILIES: dict[str, dict[str, Any]] = {
    "opt": family("opt", "OPTForCausalLM", OPT, word_embed_proj_dim=64),
    "opt, norm last": family("opt", "OPTForCausalLM", OPT, word_embed_proj_dim=32, do_layer_norm_before=False),
    "llama": family("llama", "LlamaForCausalLM", GROUPED),
    "llama, tied": family("llama", "LlamaForCausalLM", GROUPED, tie_word_embeddings=True, attention_bias=True),
    "mistral": family("mistral", "MistralForCausalLM", GROUPED, sliding_window=8),
    "qwen2": family("qwen2", "Qwen2ForCausalLM", GROUPED, tie_word_embeddings=True),
    "qwen3": family("qwen3", "Qwen3ForCausalLM", GROUPED, tie_word_embeddings=True),
    "gemma": family("gemma", "GemmaForCausalLM", GEMMA, sliding_window=None),
    "gemma2": family("gemma2", "Gemma2ForCausalLM", GEMMA, final_logit_softcapping=5.0, attn_logit_softcapping=2.0),
    "gemma3": family("gemma3_text", "Gemma3ForCausalLM", GEMMA, layer_types=["sliding_attention", "full_attention"]),
    "phi": family("phi", "PhiForCausalLM", SIZE, TOKENS, HEADS, intermediate_size=256, partial_rotary_factor=0.5),
    "phi3": family("phi3", "Phi3ForCausalLM", GROUPED, sliding_window=None),
    "phi3, window": family("phi3", "Phi3ForCausalLM", GROUPED, sliding_window=8, tie_word_embeddings=True),
    "gpt2": family("gpt2", "GPT2LMHeadModel", TOKENS, NO_DROPOUT, n_embd=64, n_layer=2, n_head=2, n_positions=64,
                   vocab_size=320, initializer_range=0.1),
    "pythia": family("gpt_neox", "GPTNeoXForCausalLM", SIZE, TOKENS, HEADS, intermediate_size=96, rotary_pct=0.25,
                     tie_word_embeddings=False, use_parallel_residual=True),
    "bloom": family("bloom", "BloomForCausalLM", TOKENS, n_layer=2, n_head=2, hidden_size=64, vocab_size=320,
                    initializer_range=0.1, hidden_dropout=0.0, attention_dropout=0.0),
    "falcon": family("falcon", "FalconForCausalLM", SIZE, TOKENS, HEADS, multi_query=True, parallel_attn=True, bias=False,
                     new_decoder_architecture=False, alibi=False),
    "stablelm": family("stablelm", "StableLmForCausalLM", GROUPED, partial_rotary_factor=0.25, use_qkv_bias=True),
    "starcoder2": family("starcoder2", "Starcoder2ForCausalLM", GROUPED, sliding_window=8, residual_dropout=0.0,
                         embedding_dropout=0.0),
    "olmo2": family("olmo2", "Olmo2ForCausalLM", GROUPED),
    "cohere": family("cohere", "CohereForCausalLM", GROUPED, logit_scale=0.25, tie_word_embeddings=True),
    "granite": family("granite", "GraniteForCausalLM", GROUPED, logits_scaling=4.0, embedding_multiplier=3.0,
                      residual_multiplier=0.5, attention_multiplier=0.1),
    "mixtral": family("mixtral", "MixtralForCausalLM", GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "qwen3_moe": family("qwen3_moe", "Qwen3MoeForCausalLM", EXPERTS, num_experts=4, norm_topk_prob=True),
    "gpt_oss": family("gpt_oss", "GptOssForCausalLM", GROUPED, num_local_experts=4, num_experts_per_tok=2, sliding_window=8,
                      layer_types=["sliding_attention", "full_attention"]),
}  # fmt: skip
EXPERT_FAMILIES = ("mixtral", "qwen3_moe", "gpt_oss")


def checkpoint(name: str, folder: Path, **changes: Any) -> Path:
    """A checkpoint of a family in which nothing is neutral: biases, norms and sinks are random too, and logits far from even."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**FAMILIES[name] | changes))
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
        model.save_pretrained(folder)
    return folder
