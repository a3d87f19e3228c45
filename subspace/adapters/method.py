"""Which method an adapter was trained by, as flags: nothing asks the words that are shown."""

from __future__ import annotations

from enum import Flag, auto


class Method(Flag):
    """What the updates of an adapter are; several flags where it mixes them.

    RSLORA and DORA stand beside what they modify: rsLoRA with DoRA is ``LORA | RSLORA | DORA``.

    >>> str(Method.LORA | Method.RSLORA), str(Method.LORA | Method.RSLORA | Method.DORA)
    ('rsLoRA', 'DoRA (BA part)')
    >>> str(Method.LOHA | Method.LOKR | Method.DORA)
    'LoHa + LoKr (of DoRA, without its magnitude)'
    """

    LORA = auto()
    LOHA = auto()
    LOKR = auto()
    ADALORA = auto()
    VERA = auto()
    FULL = auto()  # every weight was trained
    RSLORA = auto()  # the scale is alpha / sqrt(r)
    DORA = auto()  # a magnitude rescales the adapted weights
    DIFFERENCE = auto()  # the leading directions of a difference of two weights

    @classmethod
    def of_lora(cls, *, rslora: bool = False, dora: bool = False) -> Method:
        """Return LORA with what modifies it."""
        method = cls.LORA
        if rslora:
            method |= cls.RSLORA
        if dora:
            method |= cls.DORA
        return method

    def __str__(self) -> str:
        """Return the words that `inspect` and the report show."""
        difference = Method.DIFFERENCE in self
        text = " + ".join(words for method, words in _WORDS.items() if method in self)
        if Method.DORA in self and text == _WORDS[Method.LORA]:
            text = "DoRA (all)" if difference else "DoRA (BA part)"
        elif Method.DORA in self:
            text += " (of DoRA, all)" if difference else " (of DoRA, without its magnitude)"
        elif Method.RSLORA in self:
            text = "rsLoRA"
        return f"{text}, its leading directions" if difference else text


_WORDS = {
    Method.LORA: "LoRA",
    Method.LOHA: "LoHa",
    Method.LOKR: "LoKr",
    Method.ADALORA: "AdaLoRA",
    Method.VERA: "VeRA",
    Method.FULL: "full fine-tuning",
}
