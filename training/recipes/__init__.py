"""What is trained on what, and how: typed recipes (`recipe`, `kinds`), and the ones that ship as YAML (`book`)."""
