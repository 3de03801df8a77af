"""Settings of select and split. Defaults are the loosest of the four methods' rules; recipes tighten at load.

Sources of the numbers: MIP-Adapter's loader (box area 0.08-0.7 of the picture, aspect 0.3-3, containment 0.8),
EZIGen's loader (mask area 0.01-0.64 of the frame, largest part 0.9), MS-Diffusion's suggested bounds (box 1 % to
80 %, at most 4 subjects).
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Select:
    """Verdicts on objects from their stored scores; the only place with object thresholds.

    Attributes:
        min_area_share, max_area_share: of the picture, for objects; EZIGen 0.01-0.64, MIP 0.08-0.7,
            MS-Diffusion to 0.8. Small objects lose by their quality instead: of those of 0.004 to 0.01 that were judged
            by eye 59 % are good references.
        max_unnamed_box_share: box over picture, for objects without a class, whose widest masks are backgrounds;
            MIP 0.7, MS-Diffusion 0.8.
        min_short_side_px: of the box.
        max_aspect: longer over shorter side; MIP 0.3-3, the others none.
        min_box_fill: MIP asks for 0.6 with background counted in, the others for none.
        max_border_share: share of the outline on the picture's edge.
        min_largest_part: EZIGen asks for 0.9 of references only, so its view does.
        max_contained: share of the mask inside a larger one, for objects without a class (SA-1B's nested parts).
        min_mask_confidence: where the source or a model gives one; SAM's own default is 0.88.
        min_quality: of objects. By 217 of COCO's that were judged by eye it keeps 89 % of the good references, and
            13 % of what it keeps are no good ones.
        min_whole_quality: of whole pictures; below 0.3 lie black, blank and transparent ones.
    """

    min_area_share: float = 0.001
    max_area_share: float = 0.8
    max_unnamed_box_share: float = 0.8
    min_short_side_px: float = 32.0
    max_aspect: float = 6.0
    min_box_fill: float = 0.15
    max_border_share: float = 0.5
    min_largest_part: float = 0.5
    max_contained: float = 0.9
    min_mask_confidence: float = 0.7
    min_quality: float = 0.72
    min_whole_quality: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Train and validation.

    Attributes:
        validation_share: of the clusters, by hash of their name, so that growing a dataset moves nothing.
        follow_source: pictures of the source's val and test splits are validation, where its train split is here too.
        seed: another seed, another split.
    """

    validation_share: float = 0.05
    follow_source: bool = True
    seed: int = 0
