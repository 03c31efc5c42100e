"""Data parallelism under two backends, `pmap` and `jit`, over one axis named `data`.

The state is replicated under both, never stacked. Across processes pmap takes and returns host-local replicas, and
Orbax refuses those; jit has global arrays. That difference lives here alone: `place_state`, `shard_batch` and
`global_view`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bloodcell_jax.errors import UsageError

AXIS = "data"
WHOLE, ROWS = PartitionSpec(), PartitionSpec(AXIS)


@dataclass(frozen=True)
class DataParallel:
    """How steps and arrays are spread over the devices of all processes.

    Attributes:
      backend: `pmap` or `jit`.
      mesh: all devices, those of one process next to each other, along the axis `data`.
    """

    backend: str
    mesh: Mesh

    @property
    def platform(self) -> str:
        """The name that JAX gives the platform of the devices: cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of a global array that every device holds whole."""
        return NamedSharding(self.mesh, WHOLE)

    @property
    def split_rows(self) -> NamedSharding:
        """The sharding of a global array whose first axis is cut over the devices."""
        return NamedSharding(self.mesh, ROWS)

    def local_rows(self, batch_size: int) -> slice:
        """Return which slots of a global batch this process feeds."""
        rows = batch_size // jax.process_count()
        return slice(jax.process_index() * rows, (jax.process_index() + 1) * rows)

    def cut_sharding(self, shape: tuple[int, ...]) -> NamedSharding:
        """Return the sharding of a global array that is cut over the devices along an axis, if they divide one."""
        axis = next((axis for axis, size in enumerate(shape) if size % self.mesh.size == 0), None)
        return NamedSharding(self.mesh, WHOLE if axis is None else PartitionSpec(*[None] * axis, AXIS))

    @property
    def state_sharding(self) -> NamedSharding:
        """The sharding of the replicated arrays that a step takes and returns."""
        return NamedSharding(self._step_mesh, WHOLE)

    def place_state(self, tree: Any) -> Any:
        """Return a host tree, the same in every process, as replicated device arrays that a step takes."""
        return jax.tree.map(lambda x: _place(x, self.state_sharding), tree)

    def replicate(self, tree: Any) -> Any:
        """Return global arrays so that every device holds them whole; no copy is made of those that are."""
        return jax.tree.map(lambda x: x if x.is_fully_replicated else jax.device_put(x, self.replicated), tree)

    def state_shapes(self, tree: Any) -> Any:
        """Return the arrays that `place_state` makes of a tree of arrays or shapes, as shapes."""
        return jax.tree.map(lambda x: _shape(x.shape, x.dtype, self.state_sharding), tree)

    def shard_batch(self, rows: Any) -> Any:
        """Return this process's rows [local batch, ...] of a global batch as device arrays that a step takes."""
        if self.backend == "jit":
            return jax.tree.map(self.global_batch, rows)
        devices, local = self._step_mesh.size, self._local_rows_sharding
        return jax.tree.map(lambda x: jax.device_put(x.reshape(devices, -1, *x.shape[1:]), local), rows)

    def batch_shapes(self, rows: Any) -> Any:
        """Return the arrays that `shard_batch` makes of arrays or shapes [local batch, ...], as shapes."""

        def shape(x: Any) -> jax.ShapeDtypeStruct:
            count, *rest = x.shape
            if self.backend == "jit":
                return _shape((count * jax.process_count(), *rest), x.dtype, self.split_rows)
            devices = self._step_mesh.size
            return _shape((devices, count // devices, *rest), x.dtype, self._local_rows_sharding)

        return jax.tree.map(shape, rows)

    def on_each_device(self, function: Callable, in_specs: Any, out_specs: Any) -> Callable:
        """Return `function` as every device runs it on its own part of global arrays: `WHOLE` or its `ROWS`.

        The compiler is not asked to cut a program up. If it cannot (an FFT, a loop over rows until all are done), it
        has the devices exchange rows that they do not need.
        """
        return jax.shard_map(function, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def global_rows(self, rows: np.ndarray) -> jax.Array:
        """Return the rows of a batch, the same in every process, as a global array cut over all devices."""
        return jax.make_array_from_callback(rows.shape, self.split_rows, lambda index: rows[index])

    def global_batch(self, rows: np.ndarray) -> jax.Array:
        """Return a batch, of which every process gives its own rows, as a global array cut over all devices."""
        return jax.make_array_from_process_local_data(self.split_rows, rows)

    def global_view(self, tree: Any) -> Any:
        """Return a step's replicated arrays as global ones, without a copy: for checkpoints and evaluation."""
        if self._step_mesh is self.mesh:
            return tree
        return jax.tree.map(lambda x: _reassemble(x, self.replicated), tree)

    def local_view(self, tree: Any) -> Any:
        """Return replicated global arrays as those that a step takes, without a copy: after a restore."""
        if self._step_mesh is self.mesh:
            return tree
        return jax.tree.map(lambda x: _reassemble(x, self.state_sharding), tree)

    def compile_step(self, step: Callable, *arguments: Any) -> Callable:
        """Compile `step(state, data, batch, seed) -> (state, metrics)` for these arguments; the state is donated.

        Every device runs it on its own rows of the batch, under both backends; the step reduces over `AXIS` itself. If
        a part of the state is cut over the devices, the step says itself what each device runs.

        Across processes pmap compiles at its first call: ahead-of-time it would want global arrays.
        """
        state = jax.tree.map(lambda x: x.sharding, arguments[0])
        if not all(sharding.is_fully_replicated for sharding in jax.tree.leaves(state)):
            mapped = jax.jit(step, out_shardings=(state, self.replicated), donate_argnums=0)
        elif self.backend == "pmap":
            mapped = jax.pmap(
                step, axis_name=AXIS, in_axes=(None, None, 0, None), out_axes=(None, None), donate_argnums=0
            )
        else:
            mapped = jax.jit(self.on_each_device(step, (WHOLE, WHOLE, ROWS, WHOLE), (WHOLE, WHOLE)), donate_argnums=0)
        if self.backend == "pmap" and jax.process_count() > 1:
            return mapped
        return mapped.lower(*arguments).compile()

    @property
    def _local_rows_sharding(self) -> NamedSharding:
        return NamedSharding(self._step_mesh, ROWS)

    @property
    def _step_mesh(self) -> Mesh:
        if self.backend == "jit" or jax.process_count() == 1:
            return self.mesh
        return Mesh([d for d in self.mesh.devices.flat if d.process_index == jax.process_index()], (AXIS,))


def _shape(shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(dtype), sharding=sharding)


def _place(x: Any, sharding: NamedSharding) -> jax.Array:
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda index: host[index])


def _reassemble(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """Return the same device buffers under another replicated sharding."""
    shards = [shard.data for shard in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(x.shape, sharding, shards)


def create_parallel(backend: str, batch_size: int, devices: Sequence[Any] | None = None) -> DataParallel:
    """Return the data parallelism over some devices; by default over every device of every process.

    Raises:
      UsageError: the devices do not divide the batch.
    """
    found = jax.devices() if devices is None else devices
    ordered = sorted(found, key=lambda device: (device.process_index, device.id))
    check_divides(len(ordered), batch_size)
    return DataParallel(backend, Mesh(np.array(ordered), (AXIS,)))


def check_divides(devices: int, batch_size: int) -> None:
    """Check that so many devices divide a batch.

    Raises:
      UsageError: they do not; names the nearest batch sizes that fit.
    """
    if batch_size % devices:
        lower = batch_size // devices * devices
        nearest = f"{lower} or {lower + devices}" if lower else f"{devices}"
        fits = max(n for n in range(1, devices) if batch_size % n == 0)
        raise UsageError(
            f"config.train.batch_size={batch_size}: {devices} devices do not divide it; the nearest is {nearest}. A "
            f"run that goes on keeps its batch: give it {fits} of the devices (CUDA_VISIBLE_DEVICES)"
        )
