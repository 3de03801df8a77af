"""Settings: typed, with errors that say what was meant."""

from dataclasses import dataclass, field

import pytest

from refloom.curation.config import Curation
from refloom.schemas.errors import Refused
from refloom.schemas.settings import load, to_dict


@dataclass(frozen=True)
class Inner:
    min_share: float = 0.5
    names: tuple[str, ...] = ("a",)
    limit: int | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    ramps: dict[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    flag: bool = False

    def __post_init__(self) -> None:
        if self.inner.min_share > 1:
            raise ValueError("min_share is a share, at most 1")


def test_file_then_overrides(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("inner:\n  min_share: 1e-2\n  limit: 3\nflag: true\n")
    made = load(Outer, str(file), ["inner.limit=null", "ramps.x=[[0, 0], [1, 1]]", "inner.names=[p, q]"])
    assert made == Outer(Inner(0.01, ("p", "q"), None), {"x": ((0.0, 0.0), (1.0, 1.0))}, True)
    assert to_dict(made)["ramps"] == {"x": [[0.0, 0.0], [1.0, 1.0]]}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("inner.min_shar=1", "did you mean inner.min_share"),
        ("iner.min_share=1", "did you mean inner"),
        ("zzz=1", "known: inner, ramps, flag"),
        ("inner=1", "section"),
        ("inner.min_share=x", "a number"),
        ("inner.limit=1.5", "int"),
        ("flag=1", "bool"),
        ("inner.names=a", "a list"),
        ("inner.min_share=2", "at most 1"),
        ("no-equals", "key=value"),
        ("flag.x=1", "bool"),
    ],
)
def test_what_is_wrong_is_said(override, message):
    with pytest.raises(Refused, match=message):
        load(Outer, None, [override])


def test_a_file_that_is_no_settings_is_refused(tmp_path):
    for text in ("- a\n- b\n", "a: [", "just text"):
        file = tmp_path / "x.yaml"
        file.write_text(text)
        with pytest.raises(Refused, match=str(file)):
            load(Outer, str(file))
    with pytest.raises(Refused, match="cannot read"):
        load(Outer, str(tmp_path / "absent.yaml"))


def test_curation_defaults_round_trip(tmp_path):
    import yaml

    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump(to_dict(Curation())))
    assert load(Curation, str(file)) == Curation()


def test_a_component_without_a_ramp_is_refused():
    with pytest.raises(Refused, match="no ramp for the component"):
        load(Curation, None, ["quality.object_components=[area_share, beauty]"])
