"""Kinds of adapters with a loop and an edit of their own, or that read the prompt, for tests of what asks for them."""

from dataclasses import replace

import numpy as np

from refloom.inference.adapters.ip_adapter.adapter import IPAdapter
from refloom.inference.pipeline import Generated


class Prompted(IPAdapter):
    """Its references mean more the longer the prompt is, as EasyRef's are read with the prompt."""

    kind = "prompted"
    reads = frozenset({"prompt"})

    def encode(self, references, *, prompt=None):
        read = super().encode(references)
        return replace(read, tokens=read.tokens * len(prompt or ""))


class Loops(IPAdapter):
    """Its `generate` makes small arrays; its `edit` paints the mask with a grey that is the prompt's length."""

    kind = "loops"

    def generate(self, conditioning, prompt, *, iterations=1, generator=None, num_inference_steps=2):
        images = []
        for _ in range(iterations):
            with self.generation(conditioning):
                images += self.pipe(
                    prompt, generator=generator, num_inference_steps=num_inference_steps, height=32, width=32
                ).images
        return Generated([np.asarray(image) for image in images], None)

    def edit(self, conditioning, source, mask, prompt, *, generator=None, callback_on_step_end=None):
        return Generated([np.where(mask[..., None], np.uint8(len(prompt)), source)], None)
