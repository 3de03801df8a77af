"""From a dataset to eyes: the report, the browser, and what both draw."""
