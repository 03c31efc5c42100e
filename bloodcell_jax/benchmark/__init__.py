"""The verb `benchmark`: the cost of a step, its parts, a launch and a checkpoint on this machine, beside peers.

`command` measures everything: `programs` has whole steps, `roofline` the kinds of work in a step, `startup` the launch,
`checkpoint_pause` the checkpoint. Each of the `peers` runs in a process of its own.
"""

# Training and inference are not in this list: they are always measured, because the other parts refer to them.
PARTS = ("augment", "input", "blocks", "roofline", "start", "checkpoint")
