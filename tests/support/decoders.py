"""Prompts with completions, and a tokenizer for tiny decoders."""

WORDS = ["heart", "lung", "skin", "bone", "nerve", "eye", "ear", "liver"]


ROWS = [(f"say {word}" + " please" * (k % 3), f"{word} {k}") for k, word in enumerate(WORDS)]


SPLITS = ("train", "validation", "test")


def thrice(*rows):
    return dict.fromkeys(SPLITS, rows)


def write_tokenizer(folder, **tokens):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>", "<start>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["\n".join(row) for row in ROWS], trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
