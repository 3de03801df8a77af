"""What may be given once for all, or once for each: how many there must be, and what is said of another number."""

from collections.abc import Sequence
from typing import Any

from refloom.schemas.errors import Refused


def for_each(given: Any, count: int, what: str, owner: str = "prompt") -> list[Any]:
    """One for each.

    Args:
        given: one for all - a text is one - or a sequence of one for each.
        count: how many there must be.
        what, owner: names of the thing and of what each belongs to, in the singular.

    Raises:
        Refused: there are more or fewer, with both counts.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [given] * count
    if len(given) != count:
        raise Refused(f"{len(given)} {what}s for {count} {owner}s: give one for all, or one each")
    return list(given)


def check_generators(generator: Any, pictures: int) -> None:
    """Refuse a list of generators that is not one for each picture.

    Raises:
        Refused: with both counts.
    """
    if isinstance(generator, list):
        for_each(generator, pictures, "generator", "picture")


def check_conditions(conditioning: Any, prompts: int) -> None:
    """Refuse conditions that are neither one for all prompts nor one for each.

    Args:
        conditioning: of any adapter; its `strengths` have a row for each prompt, or one.
        prompts: how many there are.

    Raises:
        Refused: with both counts.
    """
    if len(conditioning.strengths) not in (1, prompts):
        raise Refused(
            f"conditions of {len(conditioning.strengths)} prompts for {prompts} prompts: encode references once for "
            "all prompts, or stack one encoding for each"
        )


def for_pictures(given: Any, prompts: int, each: int, what: str) -> Any:
    """Pictures that stock pipelines start from, one for each that is made, prompts first and then images of a prompt.

    Pipelines themselves lay one for each prompt out again and again, so that prompts get each other's.

    Args:
        given: one for all, or one for each prompt or for each picture: a list, or an array or tensor of 4 dimensions.
        prompts: how many there are.
        each: pictures of a prompt.
        what: name of the thing, in the singular.

    Raises:
        Refused: there are more or fewer.
    """
    many = isinstance(given, list | tuple) or getattr(given, "ndim", 0) == 4
    if not many or len(given) in (1, prompts * each):
        return given
    if len(given) != prompts:
        raise Refused(f"{len(given)} {what}s for {prompts} prompts: give one for all, or one each")
    at = [prompt for prompt in range(prompts) for _ in range(each)]
    return [given[prompt] for prompt in at] if isinstance(given, list | tuple) else given[at]
