"""Reference adapters for stock diffusers pipelines: IP-Adapter, MIP-Adapter, MS-Diffusion, EasyRef and EZIGen.

An adapter is a module with weights of its own (`adapter.Adapter`). `attach(pipe)` puts plain objects, never modules,
where the UNet keeps its attention processors, and one hook before the UNet; `detach()` puts the very same stock objects
back. The UNet's state dict is therefore the same before, while and after, and the adapter's weights have no second
name.

How the data of one generation reaches the attention layers, without touching the prompt embeddings:

1. `conditioning = adapter.encode(references, ...)` turns references into tokens, once for any number of generations.
2. `with adapter.generation(conditioning): pipe(...)` holds them for one generation.
3. The hook before every UNet call reads what the pipeline is doing (rows of the batch, latent size, whether there is a
   negative half, which step) and decides whether the adapter acts. When it first acts, it computes what does not change
   between steps, image keys and values above all, and lays it into the adapter's slots.
4. The processor of each cross-attention (`attention.CrossAttention`) runs the stock processor if no adapter acts there,
   and otherwise text attention plus what the slots add. Two adapters are two slots.

Nothing is appended to prompt embeddings, so ControlNets see the text alone, and schedulers, callbacks, img2img,
inpainting and offloading are the stock ones. Rows of a batch are half-major, then prompts, then images of a prompt,
as stock pipelines order them. The hook lies outside what `unet.compile_repeated_blocks()` compiles, and outside
`torch.compile(unet)` if the adapter is attached to the compiled module; in the other order it breaks the graph once.

What `install` put in is looked at when a generation begins and in every call of the UNet (`Adapter.check`): stock
processors that displaced ours are taken in, what would leave references without effect is refused.

`guidance.reference_guidance` gives references a guidance scale of their own, beside the pipeline's for the text.

Adapters of another kind override `Adapter.install`, `check`, `uninstall` and `before`: `before` sees every UNet call
and may change its keyword arguments, which is enough for EZIGen's features of the frozen UNet (through the blocks'
GLIGEN hook), LoRA weights switched with the adapter, tokens in a transformer's sequence, or modulation.

`inference.pipeline.ReferencePipeline` asks an adapter, whatever its kind: `reads` says what changes its conditions,
`for_prompts` fits them to prompts, and `generate` and `edit` run; an adapter with loops of its own overrides these two.
"""
