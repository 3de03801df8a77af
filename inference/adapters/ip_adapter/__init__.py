"""IP-Adapter, the baseline, and the heads that MIP-Adapter shares with it."""
