"""What each model is, role by role, the best first.

A model's own thresholds live here, because similarities and detector scores of two models cannot be compared; every
number says what it was measured on.
"""
