"""EasyRef's reading of references: what the language model is given, and what its reference tokens depend on."""

import numpy as np
import pytest
import tinypipes as tiny
import torch
from adapting import TINY_QWEN
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from refloom.inference.adapters.easyref import qweninputs as qwen_inputs
from refloom.inference.adapters.easyref.adapter import EasyRef, EasyRefConfig, config_values
from refloom.inference.adapters.easyref.qwen import QwenConfig, ReferenceReader, attention_mask
from refloom.inference.adapters.easyref.qweninputs import INSTRUCTION, chat_inputs
from refloom.schemas.errors import Refused

PUBLISHED_COUNTS = {120, 121, 125, 126, 128, 130, 132, 133, 135, 136, 138, 140, 143, 144, 147}


def reader(attention="causal", tokens=4, seed=1) -> ReferenceReader:
    made = ReferenceReader(TINY_QWEN, tokens=tokens, attention=attention)
    return tiny.randomise(made, seed, 0.5).requires_grad_(False)


def read(reader, *rows, **options) -> torch.Tensor:
    return reader(chat_inputs(rows, tiny.qwen_tokenizer(), side=56, **options))


def pictures(*seeds) -> list[np.ndarray]:
    """Of sizes that become grids of other shapes."""
    return [tiny.picture(seed, 40 + 40 * (seed % 3), 56 + 24 * (seed % 2)) for seed in seeds]


def test_the_window_of_areas_gives_the_published_numbers_of_tokens():
    """Spec A1.2: 144 for squares, and no others than these up to an aspect of 4."""
    assert qwen_inputs.window(336) == (94_864, 113_680)
    rng = np.random.default_rng(0)
    counts = set()
    sizes = np.concatenate([rng.integers(28, 200, (10_000, 2)), rng.integers(28, 3000, (10_000, 2))])
    for height, width in sizes.tolist():
        if max(height, width) <= 4 * min(height, width):
            snapped = qwen_inputs.fitted(height, width, 4 * 784, 16384 * 784)
            rows, columns = qwen_inputs.fitted(*snapped, *qwen_inputs.window(336))
            counts.add(rows * columns // 784)
    assert counts == PUBLISHED_COUNTS
    for side in (20, 300, 336, 1024, 5000):
        snapped = qwen_inputs.fitted(side, side, 4 * 784, 16384 * 784)
        rows, columns = qwen_inputs.fitted(*snapped, *qwen_inputs.window(336))
        assert rows * columns // 784 == (121 if side == 20 else 144 if side >= 336 else 121)


@pytest.mark.parametrize("shape", [(336, 336), (61, 240), (500, 333), (9, 900)])
def test_patches_are_those_of_the_library_on_a_picture_snapped_to_the_grid(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    smallest, largest = qwen_inputs.window(112)
    library = Qwen2VLImageProcessorPil(min_pixels=smallest, max_pixels=largest)
    snapped = qwen_inputs.fitted(*shape, 4 * 784, 16384 * 784)
    picture = qwen_inputs.Image.fromarray(image).resize(snapped[::-1], qwen_inputs.Image.Resampling.BICUBIC)
    theirs = library(picture, return_tensors="np")
    ours, grid = qwen_inputs.patches(image, 112)
    assert tuple(theirs["image_grid_thw"][0]) == grid
    np.testing.assert_allclose(ours, theirs["pixel_values"], atol=1e-5)


def test_the_turn_is_the_one_that_the_weights_were_trained_with():
    tokenizer = tiny.qwen_tokenizer()
    inputs = chat_inputs([(pictures(0, 1), "a dog")], tokenizer, side=56)
    counts = [int(grid.prod()) // 4 for grid in inputs.grids]
    seen = "".join(f"<|vision_start|>{'<|image_pad|>' * count}<|vision_end|>" for count in counts)
    assert tokenizer.decode(inputs.ids[0]) == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        f"{seen}{INSTRUCTION}a dog<|im_end|>\n<|im_start|>assistant\n"
    )
    whole = tokenizer(tokenizer.decode(inputs.ids[0]), add_special_tokens=False).input_ids
    assert whole == inputs.ids[0].tolist()
    assert len(set(counts)) == 2
    assert sum(counts) * 4 == len(inputs.patches)


def test_a_prompt_cannot_hold_special_tokens():
    made = reader()
    mean = read(made, (pictures(0), "a <|image_pad|><|im_end|> dog"))
    assert torch.isfinite(mean).all()
    inputs = chat_inputs([(pictures(0), "<|im_end|>")], tiny.qwen_tokenizer(), side=56)
    assert (inputs.ids == 258).sum() == (
        chat_inputs([(pictures(0), "")], tiny.qwen_tokenizer(), side=56).ids == 258
    ).sum()


def test_a_long_prompt_is_cut_and_the_frame_stays_or_as_published_the_end_is_cut():
    tokenizer = tiny.qwen_tokenizer()
    whole = chat_inputs([(pictures(0), "dog " * 50)], tokenizer, side=56).ids[0]
    ours, theirs = (
        chat_inputs([(pictures(0), "dog " * 50)], tokenizer, side=56, limit=250, faithful=faithful).ids[0]
        for faithful in (False, True)
    )
    assert len(ours) == len(theirs) == 250
    assert tokenizer.decode(ours).endswith("dog dog<|im_end|>\n<|im_start|>assistant\n")
    assert torch.equal(theirs, whole[:250])
    assert torch.equal(chat_inputs([(pictures(0), "dog")], tokenizer, side=56, limit=300).ids[0][:5], whole[:5])
    with pytest.raises(Refused, match="more than 40"):
        chat_inputs([(pictures(0), "")], tokenizer, side=56, limit=40)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_padding_and_other_rows_have_no_effect(attention):
    made = reader(attention)
    rows = [
        (pictures(0), "a dog"),
        (pictures(1, 2, 3, 4, 5), "a much longer prompt about dogs, cats and lanterns"),
        (pictures(4, 5), ""),
    ]
    batch = read(made, *rows)
    for at, row in enumerate(rows):
        torch.testing.assert_close(batch[at : at + 1], read(made, row), atol=1e-5, rtol=0)
    assert (batch[0] - batch[2]).abs().max() > 0.1


def test_what_padding_holds_has_no_effect_on_any_bit():
    made = reader()
    inputs = chat_inputs([(pictures(0), ""), (pictures(1, 2), "dogs")], tiny.qwen_tokenizer(), side=56)
    wanted = made(inputs)
    inputs.ids[~inputs.present] = 7
    assert (~inputs.present).any()
    assert torch.equal(made(inputs), wanted)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_earlier_reference_tokens_see_later_ones_only_if_the_final_layer_is_bidirectional(attention):
    made = reader(attention)
    before = read(made, (pictures(0), "dog"))
    made.final.reference_tokens[2] += 1
    changed = (read(made, (pictures(0), "dog")) - before).abs().amax(dim=-1)[0] > 1e-6
    assert changed.tolist() == [attention == "bidirectional"] * 2 + [True] * 2


def test_tokens_depend_on_every_reference_their_order_and_the_prompt():
    made = reader()
    seen = [
        read(made, (pictures(*seeds), prompt))
        for seeds, prompt in [((0,), ""), ((0, 1), ""), ((1, 0), ""), ((0, 2), ""), ((0, 1), "dog")]
    ]
    assert {tuple(tokens.shape) for tokens in seen} == {(1, 4, 16)}
    for at, tokens in enumerate(seen):
        assert all((tokens - other).abs().max() > 1e-3 for other in seen[at + 1 :])


def test_the_trunk_ends_with_its_norm():
    """Spec A6-5: the final layer reads normalised states, whatever the published code intends."""
    made = reader()
    made.trunk.norm.weight.fill_(1)
    seen = []
    made.final.layer.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    read(made, (pictures(0), "dog"))
    np.testing.assert_allclose(seen[0][:, :-4].square().mean(dim=-1).sqrt(), 1, atol=1e-3)


def test_the_mask_lets_padding_see_itself_alone():
    mask = attention_mask(torch.tensor([[False, True, True]]), causal=True)[0, 0]
    assert mask.tolist() == [[True, False, False], [False, True, False], [False, True, True]]


def test_training_starts_with_the_language_models_own_weights(tmp_path):
    pipe = tiny.sdxl_pipe()
    config = TINY_QWEN.library()
    config.text_config.num_hidden_layers, config.text_config.layer_types = 3, ["full_attention"] * 3
    torch.manual_seed(0)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(**config.to_dict())).eval().requires_grad_(False)
    tiny.randomise(model, 4, 0.3)
    sizes = config_values(pipe.unet) | {"tokens": 4, "lora_rank": 3, "side": 56}
    adapter = EasyRef(EasyRefConfig(**sizes, qwen=QwenConfig.of(model.config)))
    adapter.start_from_model(model, pipe.unet, tiny.qwen_tokenizer())
    assert adapter.config.qwen == TINY_QWEN
    inputs = chat_inputs([(pictures(0, 1), "dog")], tiny.qwen_tokenizer(), side=56)
    embedded = model.model.language_model.embed_tokens(inputs.ids)
    features = model.model.visual(inputs.patches, grid_thw=inputs.grids).pooler_output
    embedded[inputs.ids == inputs.image_id] = features
    hidden = model.model.language_model.layers
    model.model.language_model.layers = hidden[:-1]
    positions = torch.arange(inputs.ids.shape[1]).expand(3, 1, -1)
    wanted = model.model.language_model(inputs_embeds=embedded, position_ids=positions).last_hidden_state
    seen = []
    adapter.reader.trunk.register_forward_hook(lambda *call: seen.append(call[-1].last_hidden_state))
    adapter.reader(inputs)
    torch.testing.assert_close(seen[0], wanted, atol=1e-5, rtol=0)
    assert torch.equal(adapter.reader.final.layer.mlp.up_proj.weight, hidden[-1].mlp.up_proj.weight)
    assert torch.equal(adapter.reader.final.norm.weight, model.model.language_model.norm.weight)
    attn = pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    path = next(path for path in adapter.config.layers if path.startswith("mid_block"))
    assert torch.equal(adapter.layer(path).to_k_ip.weight, attn.to_k.weight)
    assert all(not layer.up.weight.any() for layer in adapter.lora.modules() if hasattr(layer, "up"))


def test_half_precision_leaves_positions_exact():
    made, other = reader(), reader()
    rows = [(pictures(1, 2, 3, 4, 5), "dogs and cats " * 20)]
    wanted = read(made, *rows)
    torch.testing.assert_close(read(other.to(torch.bfloat16).float(), *rows), wanted, atol=0.2, rtol=0)
    assert not [name for name, _ in other.named_buffers()]


def test_bad_input_is_refused_with_the_remedy():
    with pytest.raises(Refused, match="at least one picture"):
        read(reader(), ([], "dog"))
    with pytest.raises(Refused, match="thinner than 1 : 200"):
        read(reader(), ([np.zeros((2, 600, 3), np.uint8)], "dog"))
    with pytest.raises(Refused, match=r"no <\|im_start\|>, .*needs that of Qwen2-VL"):
        chat_inputs([(pictures(0), "dog")], tiny.tokenizer(), side=56)
    with pytest.raises(Refused, match="another model's"):
        ReferenceReader(QwenConfig(**vars(TINY_QWEN) | {"vocabulary": 100}), tokens=4)(
            chat_inputs([(pictures(0), "dog")], tiny.qwen_tokenizer(), side=56)
        )
