"""Bases that are trained themselves, tiny ones: pipelines, CLIP, Qwen2-VL. What they save, adapters are trained on."""
