"""What PEFT writes of methods that are no low-rank update is refused by name, with a way out."""

from __future__ import annotations

import warnings

import peft
import pytest
import torch
import transformers

import subspace
from tests.support.peft_adapters import tiny_bert, tiny_gpt2

pytestmark = pytest.mark.filterwarnings("ignore:::peft", "ignore:::transformers")

BERT = {"target_modules": ["query"]}
PROMPT = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3, "token_dim": 12, "num_layers": 2}
MERGE, NOTHING = "merge it into the base", "it leaves every weight as it was"


def tiny_llama():
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=2, vocab_size=31,
            num_attention_heads=2, num_key_value_heads=2,
        )
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "config", "words"),
    [
        (tiny_bert, peft.IA3Config(feedforward_modules=[], **BERT), MERGE),
        (tiny_bert, peft.OFTConfig(r=0, oft_block_size=4, **BERT), MERGE),
        (tiny_bert, peft.BOFTConfig(boft_block_size=4, **BERT), MERGE),
        (tiny_bert, peft.HRAConfig(**BERT), MERGE),
        (tiny_bert, peft.FourierFTConfig(n_frequency=9, **BERT), MERGE),
        (tiny_bert, peft.WaveFTConfig(n_frequency=9, **BERT), MERGE),
        (tiny_bert, peft.C3AConfig(block_size=4, **BERT), MERGE),
        (tiny_bert, peft.ShiraConfig(r=2, **BERT), MERGE),
        (tiny_bert, peft.RandLoraConfig(r=2, **BERT), MERGE),
        (tiny_bert, peft.RoadConfig(group_size=2, **BERT), MERGE),
        (tiny_bert, peft.VBLoRAConfig(vector_length=4, num_vectors=9, **BERT), "save_as_lora"),
        (tiny_gpt2, peft.PromptTuningConfig(**PROMPT), NOTHING),
        (tiny_gpt2, peft.PrefixTuningConfig(**PROMPT), NOTHING),
        (tiny_gpt2, peft.PromptEncoderConfig(**PROMPT), NOTHING),
        (
            tiny_llama,
            peft.AdaptionPromptConfig(adapter_layers=1, adapter_len=2, task_type="CAUSAL_LM"),
            NOTHING,
        ),
    ],
    ids=lambda value: str(value.peft_type.value) if hasattr(value, "peft_type") else "",
)
def test_refused_with_and_without_the_config(model, config, words, tmp_path):
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(model(), config).save_pretrained(tmp_path)
    kind = str(config.peft_type.value)
    with pytest.raises(subspace.SubspaceError, match=f"peft_type '{kind}' is .*{words}"):
        subspace.load(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    by_name = "PROMPT_TUNING" if model is tiny_gpt2 else kind  # all prompts have one tensor's name
    with pytest.raises(subspace.SubspaceError, match=f"is of PEFT's {by_name}, .*{words}"):
        subspace.load(tmp_path)
