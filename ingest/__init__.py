"""From sources to images, objects and source groups, and the engine that runs units of work."""
