"""What each recipe makes of a sample: a target, references as its encoder will see them, boxes, masks, words, drops."""
