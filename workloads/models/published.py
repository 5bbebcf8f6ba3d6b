"""Configurations of models that people fine-tune, as their published config.json have them. Imports nothing heavy.

Sources: arXiv 2205.01068 (OPT, table 1) and the config.json of each hub id. Of Gemma 3 4B and its like the part for text alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Config = dict[str, Any]


@dataclass(frozen=True)
class ModelInfo:
    """A model of the table. hub_id: empty where nobody publishes weights of it; config: empty for the one that is built here."""

    hub_id: str
    config: Config

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Layers, width of the hidden states, heads of attention."""
        return tuple(self.config[key] for key in ("num_hidden_layers", "hidden_size", "num_attention_heads"))


def opt(
    layers: int, hidden: int, heads: int, embedding: int | None = None, norm_first: bool = True, words: int = 50272
) -> Config:
    return {
        "architectures": ["OPTForCausalLM"],
        "model_type": "opt",
        "hidden_size": hidden,
        "ffn_dim": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "word_embed_proj_dim": embedding or hidden,
        "do_layer_norm_before": norm_first,
        "vocab_size": words,
        "max_position_embeddings": 2048,
        "activation_function": "relu",
        "init_std": 0.02,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "layerdrop": 0.0,
        "bos_token_id": 2,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "tie_word_embeddings": True,
    }


def _decoder(kind: str, layers: int, hidden: int, heads: int, kv_heads: int, inner: int, head: int, **more: Any) -> Config:
    """What the families after Llama have in common: grouped queries, gated layers, RMS norms, bfloat16. `kind`: their name."""
    return {
        "architectures": [f"{kind}ForCausalLM"],
        "model_type": kind.lower(),
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "attention_dropout": 0.0,
        "dtype": "bfloat16",
        **more,
    }


def llama3(layers: int, hidden: int, heads: int, inner: int, head: int, factor: float, tied: bool) -> Config:
    scaling = {"factor": factor, "high_freq_factor": 4.0, "low_freq_factor": 1.0, "original_max_position_embeddings": 8192}
    ids = {"bos_token_id": 128000, "eos_token_id": 128001, "vocab_size": 128256, "max_position_embeddings": 131072}
    rope = {"rope_theta": 500000.0, "rope_scaling": {**scaling, "rope_type": "llama3"}}
    return _decoder("Llama", layers, hidden, heads, 8, inner, head, **ids, **rope, rms_norm_eps=1e-5, tie_word_embeddings=tied)


def qwen3(layers: int, hidden: int, heads: int, inner: int, tied: bool) -> Config:
    ids = {"bos_token_id": 151643, "eos_token_id": 151645, "vocab_size": 151936, "max_position_embeddings": 40960}
    more = {"rope_theta": 1e6, "rms_norm_eps": 1e-6, "attention_bias": False, "use_sliding_window": False}
    return _decoder("Qwen3", layers, hidden, heads, 8, inner, 128, **ids, **more, tie_word_embeddings=tied)


def mistral(layers: int, hidden: int, heads: int, inner: int) -> Config:
    ids = {"bos_token_id": 1, "eos_token_id": 2, "vocab_size": 32768, "max_position_embeddings": 32768}
    more = {"rope_theta": 1e6, "rms_norm_eps": 1e-5, "sliding_window": None, "tie_word_embeddings": False}
    return _decoder("Mistral", layers, hidden, heads, 8, inner, 128, **ids, **more)


def gemma3(layers: int, hidden: int, heads: int, kv_heads: int, inner: int, words: int, **more: Any) -> Config:
    ids = {"bos_token_id": 2, "eos_token_id": 1, "pad_token_id": 0, "vocab_size": words}
    rope = {"rope_theta": 1e6, "rope_local_base_freq": 10000.0, "rms_norm_eps": 1e-6, "query_pre_attn_scalar": 256}
    layer_types = ["full_attention" if (layer + 1) % 6 == 0 else "sliding_attention" for layer in range(layers)]
    form = {"model_type": "gemma3_text", "hidden_activation": "gelu_pytorch_tanh", "layer_types": layer_types}
    return _decoder("Gemma3", layers, hidden, heads, kv_heads, inner, 256, **ids, **rope) | form | more


def phi3(heads: int, kv_heads: int, words: int, end: int, **more: Any) -> Config:
    """Of 32 layers, width 3072 and 8192 inside."""
    dropout = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
    sizes = {"vocab_size": words, "eos_token_id": end, "pad_token_id": end, "original_max_position_embeddings": 4096}
    return _decoder("Phi3", 32, 3072, heads, kv_heads, 8192, 3072 // heads, **dropout, **sizes, **more)


def pythia(layers: int, hidden: int, heads: int, words: int = 50304) -> Config:
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "hidden_size": hidden,
        "intermediate_size": 4 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": words,
        "max_position_embeddings": 2048,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "layer_norm_eps": 1e-5,
        "initializer_range": 0.02,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "tie_word_embeddings": False,
        "dtype": "float16",
    }


PHI4_LONG = [1, 1.118320672, 1.250641126, 1.398617824, 1.564103225, 1.74916897, 1.956131817, 2.187582649, 2.446418898,
             2.735880826, 3.059592084, 3.421605075, 3.826451687, 4.279200023, 4.785517845, 5.351743533, 5.984965424,
             6.693110555, 7.485043894, 8.370679318, 9.36110372, 10.4687158, 11.70738129, 13.09260651, 14.64173252,
             16.37415215, 18.31155283, 20.47818807, 22.90118105, 25.61086418, 28.64115884, 32.03, 32.1, 32.13, 32.23, 32.6,
             32.61, 32.64, 32.66, 32.7, 32.71, 32.93, 32.97, 33.28, 33.49, 33.5, 44.16, 47.77]  # fmt: skip
PHI4_ROPE = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": PHI4_LONG}

MODELS = {
    "opt-tiny": ModelInfo("", {}),
    "opt-mini": ModelInfo("", opt(6, 384, 6, words=684)),  # opt-tiny's vocabulary: the body decides, as in large models
    "opt-125m": ModelInfo("facebook/opt-125m", opt(12, 768, 12)),
    "opt-350m": ModelInfo("facebook/opt-350m", opt(24, 1024, 16, 512, False)),
    "opt-1.3b": ModelInfo("facebook/opt-1.3b", opt(24, 2048, 32)),
    "opt-2.7b": ModelInfo("facebook/opt-2.7b", opt(32, 2560, 32)),
    "opt-6.7b": ModelInfo("facebook/opt-6.7b", opt(32, 4096, 32)),
    "opt-13b": ModelInfo("facebook/opt-13b", opt(40, 5120, 40)),
    "opt-30b": ModelInfo("facebook/opt-30b", opt(48, 7168, 56)),
    "llama-3.2-1b": ModelInfo("meta-llama/Llama-3.2-1B", llama3(16, 2048, 32, 8192, 64, 32.0, True)),
    "llama-3.2-3b": ModelInfo("meta-llama/Llama-3.2-3B", llama3(28, 3072, 24, 8192, 128, 32.0, True)),
    "llama-3.1-8b": ModelInfo("meta-llama/Llama-3.1-8B", llama3(32, 4096, 32, 14336, 128, 8.0, False)),
    "qwen3-0.6b": ModelInfo("Qwen/Qwen3-0.6B", qwen3(28, 1024, 16, 3072, True)),
    "qwen3-1.7b": ModelInfo("Qwen/Qwen3-1.7B", qwen3(28, 2048, 16, 6144, True)),
    "qwen3-4b": ModelInfo("Qwen/Qwen3-4B", qwen3(36, 2560, 32, 9728, True)),
    "qwen3-8b": ModelInfo("Qwen/Qwen3-8B", qwen3(36, 4096, 32, 12288, False)),
    "mistral-7b": ModelInfo("mistralai/Mistral-7B-v0.3", mistral(32, 4096, 32, 14336)),
    "gemma-3-1b": ModelInfo(
        "google/gemma-3-1b-pt", gemma3(26, 1152, 4, 1, 6912, 262144, sliding_window=512, max_position_embeddings=32768)
    ),
    "gemma-3-4b": ModelInfo(
        "google/gemma-3-4b-pt",
        gemma3(34, 2560, 8, 4, 10240, 262208, sliding_window=1024, max_position_embeddings=131072,
               rope_scaling={"factor": 8.0, "rope_type": "linear"}),
    ),
    "phi-3-mini": ModelInfo(
        "microsoft/Phi-3-mini-4k-instruct",
        phi3(32, 32, 32064, 32000, bos_token_id=1, max_position_embeddings=4096, sliding_window=2047, rope_scaling=None,
             tie_word_embeddings=False),
    ),
    "phi-4-mini": ModelInfo(
        "microsoft/Phi-4-mini-instruct",
        phi3(24, 8, 200064, 199999, bos_token_id=199999, max_position_embeddings=131072, sliding_window=262144,
             partial_rotary_factor=0.75, rope_scaling=PHI4_ROPE, tie_word_embeddings=True),
    ),
    "pythia-70m": ModelInfo("EleutherAI/pythia-70m", pythia(6, 512, 8)),
    "pythia-160m": ModelInfo("EleutherAI/pythia-160m", pythia(12, 768, 12)),
    "pythia-410m": ModelInfo("EleutherAI/pythia-410m", pythia(24, 1024, 16)),
    "pythia-1b": ModelInfo("EleutherAI/pythia-1b", pythia(16, 2048, 8)),
    "pythia-1.4b": ModelInfo("EleutherAI/pythia-1.4b", pythia(24, 2048, 16)),
    "pythia-2.8b": ModelInfo("EleutherAI/pythia-2.8b", pythia(32, 2560, 32)),
    "pythia-6.9b": ModelInfo("EleutherAI/pythia-6.9b", pythia(32, 4096, 32, 50432)),
    "pythia-12b": ModelInfo("EleutherAI/pythia-12b", pythia(36, 5120, 40, 50688)),
}  # fmt: skip
