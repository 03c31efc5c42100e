"""The machine: data parallelism over devices, the processes of a run, settings of JAX and XLA, cores and memory."""
