"""Which frames of a video make its samples. Pure functions over rows already read."""

from collections import defaultdict

import numpy as np

from refloom.curation.compose.inputs import ComposeInputs
from refloom.curation.compose.settings import Compose

_SEVERAL = 2
"""Subjects that a frame of a video must show to be an image sample."""


def videos(image_ids: list[str], inputs: ComposeInputs) -> dict[str, list[str]]:
    """Video id to its frames among these pictures, by time."""
    frames: dict[str, list[str]] = defaultdict(list)
    for image_id in image_ids:
        if inputs.images[image_id]["video_id"] is not None:
            frames[inputs.images[image_id]["video_id"]].append(image_id)
    for listed in frames.values():
        listed.sort(key=lambda image_id: (inputs.images[image_id]["frame_index"] or 0, image_id))
    return dict(frames)


def video_frames(frames: list[str], inputs: ComposeInputs, config: Compose) -> list[list[str]]:
    """The frames of each sample of a video: evenly spaced, interleaved, every sample spans the whole video.

    Args:
        frames: image ids of the video in order of time.
        inputs: says which of them hold a kept object.
        config: settings.

    Returns:
        One list of image ids per sample; empty if fewer than two frames hold an object.
    """
    useful = [frame for frame in frames if any(row["track_id"] for row in inputs.objects.get(frame, []))]
    if len(useful) < 2:
        return []
    count = max(1, min(config.samples_per_video, len(useful) // config.frames_per_sample))
    samples = []
    for number in range(count):
        own = useful[number::count]
        picks = np.unique(np.round(np.linspace(0, len(own) - 1, min(config.frames_per_sample, len(own)))).astype(int))
        samples.append([own[pick] for pick in picks])
    return samples


def image_frames(frames: list[str], inputs: ComposeInputs, config: Compose) -> list[str]:
    """The frames of a video that are image samples: those with the most subjects, evenly spaced among equals.

    Args:
        frames: image ids of the video in order of time.
        inputs: with the kept objects of the frames.
        config: settings.

    Returns:
        At most `images_per_video` image ids in order of time, each with two kept objects or more.
    """
    counts = {frame: len(inputs.objects.get(frame, [])) for frame in frames}
    left = [frame for frame in frames if counts[frame] >= _SEVERAL]
    picked: list[str] = []
    for count in sorted({counts[frame] for frame in left}, reverse=True):
        alike = [frame for frame in left if counts[frame] == count]
        room = config.images_per_video - len(picked)
        # the middles of as many equal stretches as there is room for
        places = (
            [(2 * place + 1) * len(alike) // (2 * room) for place in range(room)]
            if room < len(alike)
            else range(len(alike))
        )
        picked += [alike[place] for place in places]
    return sorted(picked, key=frames.index)
