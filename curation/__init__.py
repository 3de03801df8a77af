"""From images and objects to training samples: measure, annotate, score, select, group, compose."""
