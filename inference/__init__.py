"""Models, adapters, the pipeline and evaluation."""
