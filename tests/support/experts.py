"""Tiny models whose experts are parameters of one module, as Mixtral's and GPT-OSS's are."""

import torch
import transformers

EXPERTS = "model.layers.0.mlp.experts"


BOTH = ["experts.gate_up_proj", "experts.down_proj"]


def tiny_mixtral(hidden=8, width=5):
    torch.manual_seed(1)
    return transformers.MixtralForCausalLM(
        transformers.MixtralConfig(
            hidden_size=hidden, intermediate_size=width, num_hidden_layers=1, vocab_size=31,
            num_attention_heads=2, num_key_value_heads=1, num_local_experts=3,
        )
    )  # fmt: skip


def tiny_gpt_oss(hidden=8, width=5):
    torch.manual_seed(1)
    return transformers.GptOssForCausalLM(
        transformers.GptOssConfig(
            hidden_size=hidden, intermediate_size=width, num_hidden_layers=1, vocab_size=31,
            num_attention_heads=2, num_key_value_heads=1, head_dim=4, num_local_experts=3,
        )
    )  # fmt: skip


class Stack(torch.nn.Module):
    """Several parameters of one module, whose names tell nothing."""

    def __init__(self, **shapes):
        super().__init__()
        for name, shape in shapes.items():
            setattr(self, name, torch.nn.Parameter(torch.randn(shape)))


class Model(torch.nn.Module):
    def __init__(self, **shapes):
        super().__init__()
        torch.manual_seed(1)
        self.lin = torch.nn.Linear(6, 5)
        self.experts = Stack(**shapes)
