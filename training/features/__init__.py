"""Features: what frozen models make of samples, computed once by `refloom cache` and read by the trainer.

`tables` is what lies on disk, `identity` what it follows from, `worker` and `cache` make it on Ray, `store` reads it,
`stored` is what an example has of it.
"""
