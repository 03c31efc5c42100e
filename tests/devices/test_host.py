"""What this process takes of the host."""

import threading
from typing import ClassVar

import numpy as np
import pytest
from threadpoolctl import ThreadpoolController

from bloodcell_jax.devices import host
from bloodcell_jax.devices.host import one_blas_thread, processor_name
from bloodcell_jax.evaluate.out_of_distribution import appearance_distance, neighbor_distance
from bloodcell_jax.weights.calibration import Reference

POOLS = ThreadpoolController()


def blas_threads():
    return {pool["num_threads"] for pool in POOLS.info() if pool["user_api"] == "blas"}


def set_blas_threads(number):
    """Set the number of threads from a thread that ends, because threadpoolctl lets one live thread set it."""

    def set_them():
        for pool in POOLS.select(user_api="blas").lib_controllers:
            pool.set_num_threads(number)

    thread = threading.Thread(target=set_them)
    thread.start()
    thread.join()


@pytest.fixture
def two_blas_threads():
    before = blas_threads()
    set_blas_threads(2)
    if blas_threads() != {2}:
        pytest.skip("this NumPy's matrix products have no threads to set")
    yield
    set_blas_threads(before.pop())


class Watched(np.ndarray):
    """An array that notes how many threads its matrix products may use."""

    seen: ClassVar[list] = []

    def __matmul__(self, other):
        self.seen.append(blas_threads())
        return super().__matmul__(other)


def test_the_products_of_an_answer_run_on_one_thread(two_blas_threads):
    rng = np.random.default_rng(0)
    pooled, appearance = (rng.normal(size=(3, width)).astype(np.float32).view(Watched) for width in (16, 24))
    features, whitening = (rng.normal(size=shape).astype(np.float32) for shape in ((50, 16), (24, 24)))
    reference = Reference(features, np.zeros(24, np.float32), whitening, (0.0,) * 3, (1.0,) * 3, 1.0)
    Watched.seen.clear()
    neighbor_distance(pooled, features)
    appearance_distance(appearance, reference)
    assert Watched.seen == [{1}, {1}]
    assert blas_threads() == {2}


def test_two_threads_that_take_one_blas_thread_at_once_leave_the_number_as_it_was(two_blas_threads):
    inside, go_on, inside_second = threading.Event(), threading.Event(), []

    def first():
        with one_blas_thread():
            inside.set()
            go_on.wait(10)

    def second():
        with one_blas_thread():
            inside_second.append(blas_threads())

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    threads[1].join(0.05)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert inside_second == [{1}]
    assert blas_threads() == {2}


@pytest.mark.parametrize(
    ("info", "name"),
    [
        (
            "processor\t: 0\nmodel name\t: AMD EPYC 9B14\n\nprocessor\t: 1\nmodel name\t: AMD EPYC 9B14\n",
            "AMD EPYC 9B14",
        ),
        # Linux on Arm numbers the parts and names none.
        ("processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n", None),
    ],
)
def test_the_processor_has_a_name_where_the_host_tells_it(tmp_path, monkeypatch, info, name):
    path = tmp_path / "cpuinfo"
    path.write_text(info)
    monkeypatch.setattr(host, "_CPU_INFO", path)
    assert processor_name() == name
