"""MS-Diffusion: several references, each in its place."""
