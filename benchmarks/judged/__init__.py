"""What curation decides, against judgements by eye: a file a section of `benchmarks.quality`."""
