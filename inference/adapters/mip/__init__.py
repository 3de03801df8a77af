"""MIP-Adapter: several references, merged at every position by their phrases."""
