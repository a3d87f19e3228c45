"""PEFT's methods: one file a method, and what they share.

`config`, `keys` and `matching` are PEFT's own rules; `methods` is what all methods but LoRA share.
Start reading with `lora`.
"""
