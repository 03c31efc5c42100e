"""What is read from the text of a compiled program."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bloodcell_jax.plan.costliest import costliest
from bloodcell_jax.plan.program import collectives, read_operations


def operations_of(function, *arguments, **options):
    return read_operations(jax.jit(function, **options).lower(*arguments).compile().as_text())


def shape(*sizes, dtype=np.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_collectives_are_counted_with_their_bytes():
    mesh = Mesh(np.array(jax.devices()[:4]), ("data",))

    def step(x):
        return lax.psum((x.sum(0), x.mean()), "data"), lax.all_gather(x[:, 0], "data")

    rows = PartitionSpec("data")
    mapped = jax.shard_map(step, mesh=mesh, in_specs=rows, out_specs=PartitionSpec(), check_vma=False)
    found = collectives(operations_of(mapped, shape(8, 100), in_shardings=NamedSharding(mesh, rows)))
    assert {row["kind"]: row["bytes"] for row in found} == {"all-reduce": 404, "all-gather": 8 * 4}


def test_a_gather_reads_what_it_returns_and_not_the_whole_array():
    small = shape(16, dtype=np.int32)
    moved = sum(o.moved for o in operations_of(lambda x, i: x[i] * 2.0, shape(100_000, 64), small))
    # 16 rows are read and written, possibly by two operations.
    assert 2 * 16 * 64 * 4 <= moved <= 8 * 16 * 64 * 4
    whole = sum(o.moved for o in operations_of(lambda x: x * 2.0, shape(100_000, 64)))
    assert whole == pytest.approx(2 * 100_000 * 64 * 4, rel=0.01)


def test_a_loop_counts_as_often_as_it_runs():
    def repeated(times):
        def loop(x):
            return lax.fori_loop(0, times, lambda _, x: jnp.cumsum(jnp.sin(x @ x), 0), x)

        return sum(o.times for o in operations_of(loop, shape(32, 32)) if "dot" in o.path)

    assert repeated(40) == 10 * repeated(4) > 0


def test_a_loop_that_fills_an_array_writes_its_rows_and_not_the_whole_array_each_time():
    def fill(row):
        return lax.scan(lambda row, _: (jnp.sin(row), row), row, None, length=500)[1]

    moved = sum(o.moved * o.times for o in operations_of(fill, shape(1000)))
    # Each row is read, computed, and written into the carry and the array, possibly by several operations.
    assert 500 * 1000 * 4 <= moved <= 10 * 500 * 1000 * 4


TWO_SLICES = """
HloModule jit_train_step

ENTRY %main.1 (gradient: f32[4096]) -> f32[4096] {
  %gradient = f32[4096]{0} parameter(0)
  %reduce-scatter.1 = f32[1024]{0} reduce-scatter(%gradient), replica_groups={{0,1,2,3}}, dimensions={0}
  %after-all.1 = token[] after-all(), frontend_attributes={MegascaleRendezvousKeyName="all-reduce.64_0"}
  %send.1 = (f32[1024]{0}, u32[], token[]) send(%reduce-scatter.1, %after-all.1), is_host_transfer=true, \
frontend_attributes={_xla_megascale_reduce_operation="SUM",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv.1 = (f32[1024]{0}, u32[], token[]) recv(%after-all.1), is_host_transfer=true, \
frontend_attributes={_xla_megascale_reduce_operation="SUM",_xla_megascale_transfer_type="ALL_REDUCE"}
  %recv-done.1 = (f32[1024]{0}, token[]) recv-done(%recv.1)
  %sum.1 = f32[1024]{0} get-tuple-element(%recv-done.1), index=0
  ROOT %all-gather.1 = f32[4096]{0} all-gather(%sum.1), replica_groups={{0,1,2,3}}, dimensions={0}
}
"""


def test_a_sum_over_slices_is_told_from_sums_inside_them():
    found = {row["kind"]: (row["count"], row["bytes"]) for row in collectives(read_operations(TWO_SLICES))}
    assert found == {
        "all-gather": (1, 16384),
        "reduce-scatter": (1, 4096),
        "send between slices": (1, 4096 + 4),  # a number goes with it
    }


TPU_LOOP = """
HloModule jit_train_step

%condition.1 (state.1: (s32[], f32[8])) -> pred[] {
  %constant.1 = s32[]{:T(128)} constant(27)
  %state.1 = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  %count.1 = s32[]{:T(128)} get-tuple-element(%state.1), index=0
  ROOT %lt.1 = pred[]{:T(512)} compare(%count.1, %constant.1), direction=LT
}

%body.1 (state.2: (s32[], f32[8])) -> (s32[], f32[8]) {
  %state.2 = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  ROOT %fusion.1 = (s32[]{:T(128)}, f32[8]{0}) fusion(%state.2), kind=kLoop, metadata={op_name="jit(train_step)/\
jvp(ConvNeXt)/stage_2/while/body/closed_call/checkpoint/Block/project/dot_general"}
}

ENTRY %main.1 (start.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  %start.1 = (s32[]{:T(128)}, f32[8]{0}) parameter(0)
  ROOT %while.1 = (s32[]{:T(128)}, f32[8]{0}) while(%start.1), condition=%condition.1, body=%body.1
}
"""


def test_a_loop_of_a_tpu_runs_as_often_as_its_condition_says():
    [operation] = read_operations(TPU_LOOP)
    assert operation.times == 27
    [row] = costliest([operation], lambda operation: operation.moved, most=1)
    assert (row["name"], row["count"]) == ("forward stage_2/block_*/project/dot_general, fusion", 27)


def test_operations_have_the_names_of_the_code():
    def step(x):
        with jax.named_scope("block_3"), jax.named_scope("expand"):
            return jnp.sin(x @ x)

    rows = costliest(operations_of(step, shape(256, 256)), lambda operation: operation.moved, most=3)
    assert any("block_*/expand" in row["name"] for row in rows)
    assert sum(row["share"] for row in rows) <= 1 + 1e-9


TPU_TEXT = """
HloModule jit_train_step, is_scheduled=true

%fused_computation.1 (param_0.1: u8[12000,27648], param_1.2: s32[128]) -> f32[128,27648] {
  %param_0.1 = u8[12000,27648]{1,0:T(8,128)(4,1)} parameter(0)
  %param_1.2 = s32[128]{0:T(128)} parameter(1)
  %gather.1 = u8[128,27648]{1,0:T(8,128)(4,1)} gather(%param_0.1, %param_1.2), offset_dims={1}
  ROOT %convert.1 = f32[128,27648]{1,0:T(8,128)} convert(%gather.1)
}

ENTRY %main.1 (data: u8[12000,27648], indices: s32[128]) -> f32[128,27648] {
  %data = u8[12000,27648]{1,0:T(8,128)(4,1)} parameter(0), metadata={op_name="data[\\'images\\']"}
  %indices = s32[128]{0:T(128)} parameter(1)
  %copy-start = (s32[128]{0:T(128)S(1)}, s32[128]{0:T(128)}, u32[]{:S(2)}) copy-start(%indices)
  %copy-done = s32[128]{0:T(128)S(1)} copy-done(%copy-start)
  ROOT %fusion.1 = f32[128,27648]{1,0:T(8,128)} fusion(%data, %copy-done), kind=kLoop, calls=%fused_computation.1, \
metadata={op_name="jit(train_step)/shard_map/jvp(ConvNeXt)/ConvNeXt.extract/stage_1/block_0/depthwise/cond/\
branch_0_fun/conv_general_dilated"}, backend_config={"flag_configs":[],"estimated_cycles":"5956878"}
}
"""


def test_the_text_of_a_tpu_program():
    """Layouts, memory near the cores, asynchronous copies and the compiler's estimate, as libtpu 0.0.42 writes them."""
    copy, fusion = read_operations(TPU_TEXT)
    assert (copy.opcode, copy.moved, copy.cycles) == ("copy", 512 + 512, None)
    assert (fusion.opcode, fusion.cycles) == ("fusion", 5956878)
    assert fusion.moved == 128 * 27648 * (1 + 4)
    [row] = costliest([fusion], lambda operation: operation.cycles or 0, most=1)
    assert row["name"] == "forward stage_1/block_*/depthwise/conv_general_dilated, fusion"
