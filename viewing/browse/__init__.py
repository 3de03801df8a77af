"""Looking at a dataset: sizes and single rows on the terminal, and a local page to search and browse it."""
