"""Models of the large ones' architecture in sizes that a laptop trains: `base/tiny`, and the tests' random ones.

Everything comes from installed packages; nothing asks for the network.
"""
