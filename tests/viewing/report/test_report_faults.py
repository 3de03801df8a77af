"""What the report says of an object's quality: what pulled it down, with scores, and what it was made without."""

from dataclasses import replace

from reporting import CONFIG, build, page_of

from refloom.curation.annotate.faults import faults, unknown
from refloom.curation.annotate.settings import Quality
from refloom.viewing.report.threshold import quality_settings


def test_an_objects_tile_says_what_pulled_its_quality_down(dataset, page):
    said = [title for _, attributes in page.elements if (title := attributes.get("title") or "")]
    rows = {row["object_id"]: row for row in dataset.read("object_scores").to_pylist()}
    found = 0
    for title in said:
        lines = title.split("\n")
        row = rows.get(lines[0])
        if row is None or row["quality"] is None or not any(line.startswith("quality: ") for line in lines):
            continue
        wanted = [str(fault) for fault in faults(row, "object", Quality())[:3]]
        told = [line.removeprefix("pulled down: ").split(", ") for line in lines if line.startswith("pulled down: ")]
        assert told == ([wanted] if wanted else [])
        assert f"made without: {', '.join(unknown(row, 'object', Quality()))}" in lines
        found += bool(wanted)
    assert found > 3


def test_it_judges_by_the_settings_of_the_dataset(tmp_path):
    own = Quality(object_components=("sharpness",), optional_components=("contrast",), weights={"contrast": 9.0})
    dataset = build(tmp_path, config=replace(CONFIG, quality=own))
    assert quality_settings(dataset) == own
    told = [line for line in page_of(dataset).titles().split("\n") if line.startswith(("pulled down", "made without"))]
    assert told
    assert not any(word in line for line in told for word in ("tiny", "cut off", "made without"))


def test_before_quality_there_are_no_settings(tmp_path):
    assert quality_settings(build(tmp_path, until="ingest")) is None
