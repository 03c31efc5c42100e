"""The mathematics of training, pure: the step, its state, losses, optimizers, stages. No files, clocks or devices."""
