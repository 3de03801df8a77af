"""EZIGen: subjects as features of the frozen UNet, and its loops of generation and editing."""
