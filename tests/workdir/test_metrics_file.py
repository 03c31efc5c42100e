"""The log of a run is read while the run writes it."""

from bloodcell_jax.workdir import Workdir


def test_a_line_still_being_written_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert Workdir(tmp_path).read_metrics() == [{"step": 1}, {"step": 2}]
