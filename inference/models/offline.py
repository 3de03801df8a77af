"""No network while models are loaded: every file that they need is local, or they are absent."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


@contextmanager
def offline() -> Iterator[None]:
    """Let nothing ask the Hugging Face hub, whether its libraries are imported in here or were before.

    What was set before is set again after: other parts of this process may read pictures from a hub.
    """
    from huggingface_hub import constants  # in here, because importing the registry imports no model library

    before = {name: os.environ.get(name) for name in _VARIABLES}
    os.environ.update(dict.fromkeys(_VARIABLES, "1"))
    was_offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True  # what the environment said when it was imported; every request asks it
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
