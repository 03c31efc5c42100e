"""The verb `benchmark`: what a step, its parts, a launch and a checkpoint cost here, and peers beside them.

`command` puts the parts together: `programs` (whole steps), `layers` and `roofline` (what a step is made of),
`startup`, `checkpoint_pause`, and `peers`, each in a process of its own.
"""

# Training and inference are always measured: the rest is set against them.
PARTS = ("augment", "input", "blocks", "roofline", "start", "checkpoint")
