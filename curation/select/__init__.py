"""What is kept, what is trained on and what is held out: verdicts, splits, caps and shares."""
