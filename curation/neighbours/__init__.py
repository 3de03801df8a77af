"""One neighbour search for near-duplicates and groups: pairs of vectors by cosine, of hashes by Hamming distance.

`plan` says which rows meet, `search` compares them, `pairs` holds what was found, `clusters` makes groups of it and
`phash` does the same for 64-bit perceptual hashes. Nothing here reads a dataset or knows what a row stands for.
"""
