"""The page of `refloom ui`: references with phrases, places drawn with the mouse, a gallery. Made with gradio.

It listens on this machine only, answers to its own pages only (`schemas.guard`), shares nothing, and sends nothing
anywhere.
"""

import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

import gradio as gr
import uvicorn
from fastapi import FastAPI
from PIL import Image

from refloom.inference.adapters.reference import Box, Reference
from refloom.inference.contactsheet import COLOURS, draw_places
from refloom.inference.guardedpage import NO_DOCS, GuardedPage
from refloom.inference.pipeline import ReferencePipeline
from refloom.ingest.files import MAX_FILE_BYTES
from refloom.schemas.errors import RefloomError, Refused
from refloom.schemas.guard import Guard

SUBJECTS = 4
_CANVAS_PX = 384
_LEAST = 0.02
"""Smallest side of a place, as a share of the picture; two clicks nearer than this are one."""
_KEPT_S = 3600
"""How long uploads and results are kept on disk."""


@dataclass(frozen=True, slots=True)
class Places:
    """What has been drawn.

    Attributes:
        boxes: of each subject, or None for anywhere.
        corner: of a box that is half drawn, x and y in 0–1, and its subject.
    """

    boxes: tuple[Box | None, ...] = (None,) * SUBJECTS
    corner: tuple[int, float, float] | None = None

    def clicked(self, subject: int, x: float, y: float) -> "Places":
        """After a click at x, y in 0–1: the first sets a corner, the second makes the box of the subject."""
        if self.corner is None or self.corner[0] != subject:
            return replace(self, corner=(subject, x, y))
        _, x0, y0 = self.corner
        if abs(x - x0) < _LEAST or abs(y - y0) < _LEAST:
            return replace(self, corner=None)
        box = (min(x, x0), min(y, y0), max(x, x0), max(y, y0))
        return Places(tuple(box if at == subject else one for at, one in enumerate(self.boxes)))

    def cleared(self, subject: int) -> "Places":
        """Without the place of a subject."""
        return Places(tuple(None if at == subject else one for at, one in enumerate(self.boxes)))

    def drawn(self, width: int, height: int) -> Image.Image:
        """On an empty picture of a result's shape; a corner is a small square."""
        shown: list[list[Box]] = [[box] if box else [] for box in self.boxes]
        if self.corner is not None:
            subject, x, y = self.corner
            shown[subject].append((max(x - 0.01, 0), max(y - 0.01, 0), min(x + 0.01, 1), min(y + 0.01, 1)))
        return draw_places([(boxes, None) for boxes in shown], (int(width), int(height)), _CANVAS_PX)


class Studio:
    """What the page does with the pipeline; references are read again only when they changed.

    Args:
        pipeline: that makes the pictures.
        options: of every generation.
    """

    def __init__(self, pipeline: ReferencePipeline, options: Mapping[str, Any]) -> None:
        self.pipeline, self._options = pipeline, options
        self._given: Any = None

    def references(self, subjects: list[tuple[Any, ...]], places: Places) -> None:
        """Give the pipeline the subjects that have pictures.

        Args:
            subjects: pictures as gradio has them, phrase, scale, and whether to crop faces, of each.
            places: of them.
        """
        given: list[tuple[Any, ...]] = [
            (tuple(path for path, _ in pictures), phrase.strip() or None, box, scale, "face" if crop else None)
            for (pictures, phrase, scale, crop), box in zip(subjects, places.boxes, strict=True)
            if pictures
        ]
        if given != self._given:
            self._given = None
            self.pipeline.set_references(
                Reference(paths, phrase, boxes, None, scale, crop) for paths, phrase, boxes, scale, crop in given
            )
            self._given = given

    def generate(self, values: Mapping[str, Any], progress: Any) -> list[tuple[Image.Image, str]]:
        """Pictures with captions.

        Args:
            values: of the page's fields by name.
            progress: gradio's.
        """

        def step(pipe: Any, at: int, timestep: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
            del timestep
            progress((at + 1, int(pipe.num_timesteps)), unit="steps")
            return kwargs

        self.pipeline.adapter.scale = values["strength"]
        made = self.pipeline.generate(
            values["prompt"],
            values["negative"] or None,
            height=_whole(values["height"]),
            width=_whole(values["width"]),
            num_images_per_prompt=_whole(values["images"]),
            num_inference_steps=_whole(values["steps"]),
            guidance_scale=values["guidance"],
            reference_guidance_scale=values["reference_guidance"] or None,
            seed=None if values["seed"] in (-1, None) else _whole(values["seed"]),
            callback_on_step_end=step,
            **self._options,
        )
        seeds = made.seeds or (None,) * len(made.images)
        return [(image, f"seed {seed}") for image, seed in zip(made.images, seeds, strict=True)]


def _whole(value: Any) -> Any:
    """A field's whole number, which the browser may send as 30.0; anything else is itself, for `Request` to refuse."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def build(pipeline: ReferencePipeline, options: Mapping[str, Any]) -> gr.Blocks:
    """The page for a pipeline; `options` go with every generation."""
    studio = Studio(pipeline, options)
    factor = int(getattr(pipeline.pipe, "vae_scale_factor", 8))
    own = int(pipeline.pipe.unet.config.sample_size) * factor
    with gr.Blocks(title="refloom", analytics_enabled=False, delete_cache=(_KEPT_S, _KEPT_S)) as page:
        places = gr.State(Places())
        gr.Markdown(f"# refloom\n{pipeline.adapter.kind} on {type(pipeline.pipe).__name__}")
        with gr.Row():
            with gr.Column():
                subjects = [_subject(at) for at in range(SUBJECTS)]
                chosen = gr.Radio(
                    [(f"subject {at + 1}", at) for at in range(SUBJECTS)], value=0, label="place of", elem_id="chosen"
                )
                canvas = gr.Image(
                    Places().drawn(own, own),
                    label="places: click two corners",
                    interactive=False,
                    type="pil",
                    format="png",
                    elem_id="canvas",
                    buttons=[],
                )
                clear = gr.Button("anywhere", size="sm", elem_id="clear")
            with gr.Column():
                fields = _fields(own, factor, pipeline.adapter.scale)
                run = gr.Button("generate", variant="primary", elem_id="run")
                gallery = gr.Gallery(label="pictures", format="png", columns=2, elem_id="results")
        size = [fields["width"], fields["height"]]

        def click(drawn: Places, subject: int, width: int, height: int, event: gr.SelectData) -> Any:
            shown = drawn.drawn(width, height)
            drawn = drawn.clicked(subject, event.index[0] / shown.width, event.index[1] / shown.height)
            return drawn, drawn.drawn(width, height)

        def forget(drawn: Places, subject: int, width: int, height: int) -> Any:
            drawn = drawn.cleared(subject)
            return drawn, drawn.drawn(width, height)

        def generate(drawn: Places, *values: Any, progress: Any = gr.Progress()) -> Any:  # noqa: B008
            every = [values[at : at + 4] for at in range(0, 4 * SUBJECTS, 4)]
            named = dict(zip(fields, values[4 * SUBJECTS :], strict=True))
            try:
                studio.references(every, drawn)
                return studio.generate(named, progress)
            except RefloomError as error:
                raise gr.Error(str(error), duration=None, print_exception=False) from error

        canvas.select(click, [places, chosen, *size], [places, canvas], show_progress="hidden")
        clear.click(forget, [places, chosen, *size], [places, canvas], show_progress="hidden")
        for side in size:
            side.change(lambda drawn, *sides: drawn.drawn(*sides), [places, *size], canvas, show_progress="hidden")
        inputs = [places, *(field for subject in subjects for field in subject), *fields.values()]
        run.click(generate, inputs, gallery)
    return page


@contextmanager
def serving(pipeline: ReferencePipeline, options: Mapping[str, Any], host: str, port: int) -> Iterator[str]:
    """Serve the page inside this block; gives its address.

    Args:
        pipeline: that makes the pictures.
        options: of every generation.
        host, port: to listen on; port 0 takes a free one.

    Raises:
        Refused: it cannot listen there.
    """
    font = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    app = gr.mount_gradio_app(
        FastAPI(**NO_DOCS),
        build(pipeline, options),
        "/",
        theme=font,
        ssr_mode=False,
        footer_links=[],
        app_kwargs=NO_DOCS,
        max_file_size=MAX_FILE_BYTES,
    )
    try:
        listening = socket.create_server((host, port))
    except OSError as error:
        raise Refused(f"cannot listen on {host}:{port} ({error}): give another --port or --host") from error
    server = uvicorn.Server(
        uvicorn.Config(GuardedPage(app, Guard(host)), log_level="warning", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    with listening:
        thread.start()
        while not server.started and thread.is_alive():
            time.sleep(0.02)
        try:
            yield f"http://{host}:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _subject(at: int) -> list[Any]:
    with gr.Accordion(f"subject {at + 1}", open=at == 0):
        gr.HTML(f'<div style="height: 3px; background: {COLOURS[at]}"></div>')
        pictures = gr.Gallery(
            label="pictures of the same subject",
            type="filepath",
            interactive=True,
            columns=4,
            height=180,
            elem_id=f"pictures-{at}",
        )
        with gr.Row():
            phrase = gr.Textbox(label="phrase", placeholder="a cat", elem_id=f"phrase-{at}")
            scale = gr.Slider(0, 2, value=1, step=0.05, label="strength")
            crop = gr.Checkbox(label="face only")
    return [pictures, phrase, scale, crop]


def _fields(own: int, factor: int, strength: float) -> dict[str, Any]:
    """The fields of a generation by name, the order in which they stand."""
    fields: dict[str, Any] = {"prompt": gr.Textbox(label="prompt", lines=2, elem_id="prompt")}
    fields["negative"] = gr.Textbox(label="negative prompt")
    with gr.Row():
        fields["width"] = gr.Slider(own // 4, own * 2, value=own, step=factor, label="width", elem_id="width")
        fields["height"] = gr.Slider(own // 4, own * 2, value=own, step=factor, label="height")
    with gr.Row():
        fields["steps"] = gr.Slider(1, 100, value=30, step=1, label="steps", elem_id="steps")
        fields["guidance"] = gr.Slider(1, 20, value=5, step=0.5, label="guidance")
        fields["reference_guidance"] = gr.Slider(0, 20, value=0, step=0.5, label="of the references (0: the same)")
    with gr.Row():
        fields["strength"] = gr.Slider(0, 2, value=strength, step=0.05, label="strength of all references")
        fields["images"] = gr.Slider(1, 8, value=1, step=1, label="pictures")
        fields["seed"] = gr.Number(label="seed (-1: a new one)", value=-1, precision=0, elem_id="seed")
    return fields
