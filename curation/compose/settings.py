"""Settings of compose."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Compose:
    """Samples.

    Attributes:
        frames_per_sample: of a video sample, evenly spaced.
        samples_per_video: each takes other frames, interleaved, so that every sample spans the whole video.
        images_per_video: frames of a video that are image samples besides, those with the most subjects, two at least;
            tracks that are seen in one frame alone count there.
        max_pictures_per_group: of a group sample; more are thinned evenly.
        max_subjects: of a sample, by quality.
        references_per_subject: of a subject of a cross sample, those first whose pose differs most from the target's.
        references_per_target: images beside the target of a cross sample.
        min_face_px: shorter side of a face that is a subject of its own.
        min_phrase_probability, min_phrase_margin: phrases from the vocabulary below these are not used.
        max_side_px: re-encode larger pictures to this and scale boxes and masks; null keeps the source's bytes.
        jpeg_quality: of re-encoded pictures.
    """

    frames_per_sample: int = 8
    samples_per_video: int = 4
    images_per_video: int = 1
    max_pictures_per_group: int = 30
    max_subjects: int = 16
    references_per_subject: int = 3
    references_per_target: int = 12
    min_face_px: float = 64.0
    min_phrase_probability: float = 0.1
    min_phrase_margin: float = 0.01
    max_side_px: int | None = None
    jpeg_quality: int = 95

    def __post_init__(self) -> None:
        if self.frames_per_sample < 2:
            raise ValueError("frames_per_sample must be 2 or more: a pair needs two frames")
        if self.images_per_video < 0:
            raise ValueError(f"images_per_video is 0 or more, not {self.images_per_video}")
        if self.references_per_subject < 0 or self.references_per_target < 0:
            raise ValueError("references_per_subject and references_per_target are 0 or more; 0 makes no cross samples")
        if self.max_side_px is not None and self.max_side_px < 64:
            raise ValueError("max_side_px must be 64 or more, or null for the source's own pictures")

    @property
    def makes_cross(self) -> bool:
        """Whether there are cross samples at all."""
        return self.references_per_subject > 0 and self.references_per_target > 0
