"""A tiny Qwen3-VL made in code: its tokenizer and processor, its untaught weights, and its teaching."""
