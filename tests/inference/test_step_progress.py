"""Steps of denoising on the terminal: the first one, in which models come to the device, is in no rate."""

import io
from types import SimpleNamespace

from refloom.inference import results
from refloom.inference.results import StepProgress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_no_time_is_told_after_the_first_step_and_the_first_step_is_in_no_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(results, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = Terminal()
    progress = StepProgress("generate", stream)
    for step, took in enumerate((60.0, 2.0, 2.0, 2.0)):
        now[0] += took
        progress(SimpleNamespace(num_timesteps=4), step, None, {})
    drawn = [text.split("  ")[-1] for text in stream.getvalue().split("\r\033[K")[1:]]
    assert drawn == ["left", "4 s left", "2 s left", "done\n"]
    assert "0.50 steps/s  done" in stream.getvalue()


def test_a_file_gets_a_line_each_half_minute_and_the_last(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(results, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stream = io.StringIO()
    progress = StepProgress("generate", stream)
    for step in range(50):
        now[0] += 1.0
        progress(SimpleNamespace(num_timesteps=50), step, None, {})
    assert [text.split("  ")[1] for text in stream.getvalue().splitlines()] == ["step 31/50", "step 50/50"]
