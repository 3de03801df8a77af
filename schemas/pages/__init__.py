"""What all HTML pages share: markup that escapes, a style sheet, axes and curves."""
