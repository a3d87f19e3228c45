"""PEFT's methods: one file a method, and what they share.

`config`, `keys`, `patterns` (each module's alpha and rank) and `regex` (one pattern against one
path, in bounded time) are PEFT's own rules; `methods` is what all methods but LoRA share.
Start reading with `lora`.
"""
