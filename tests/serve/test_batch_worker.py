"""Images of all requests share batches, and each of them gets its own answer."""

import threading
import time

import numpy as np
import pytest


@pytest.fixture
def passes(served, monkeypatch):
    """Return the list of images in each pass of the model, which fills while the test runs."""
    counts = []

    def counting(classifier):
        original = classifier.answers_as_they_come

        def answers(batches):
            batches = list(batches)
            counts.extend(map(len, batches))
            return original(batches)

        return answers

    for classifier in served.worker._passes:
        monkeypatch.setattr(classifier, "answers_as_they_come", counting(classifier))
    return counts


def answer(worker, pixels):
    worker.announce()
    return worker.answer(pixels)


def test_images_that_wait_share_passes_of_64_at_most(served, pixels, passes):
    release = threading.Event()
    task = served.worker.run(lambda: release.wait(60))
    answers = [answer(served.worker, image) for image in pixels[:70]]
    release.set()
    assert task.result(60)
    found = np.array([each.result(60).probabilities for each in answers])
    assert passes == [64, 6]
    np.testing.assert_allclose(found, served.classifier.predict(pixels[:70]), atol=1e-6)


def test_images_of_requests_at_the_same_time_share_a_pass(server, pixels, png, passes, eventually):
    replies = [None] * 12

    def ask(number):
        replies[number] = server.post("/predict", (f"{number}.png", png(pixels[number]))).json()

    with server.busy():
        clients = [threading.Thread(target=ask, args=(number,)) for number in range(len(replies))]
        for client in clients:
            client.start()
        eventually(lambda: server.get("/health").json()["waiting"] == len(replies))
        eventually(lambda: server.served.worker._queue.qsize() == len(replies))
    for client in clients:
        client.join(60)
    assert passes == [12]
    expected = server.served.classifier.predict(pixels[:12])
    found = [list(reply["images"][0]["probabilities"].values()) for reply in replies]
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_a_batch_waits_for_an_image_that_is_announced_and_no_longer_than_10_ms(served, pixels, passes):
    worker = served.worker
    worker.announce()  # decoded in a moment
    first = answer(worker, pixels[0])
    second = worker.answer(pixels[1])
    first.result(60), second.result(60)
    assert sum(passes) == 2
    worker.announce()
    start = time.monotonic()
    answer(worker, pixels[0]).result(60)  # The announced one does not come.
    assert time.monotonic() - start < 5
    worker.withdraw()


def test_an_answer_that_nobody_waits_for_is_not_computed(served, pixels, passes):
    release = threading.Event()
    task = served.worker.run(lambda: release.wait(60))
    gone, wanted = answer(served.worker, pixels[0]), answer(served.worker, pixels[1])
    gone.cancel()
    release.set()
    task.result(60)
    wanted.result(60)
    assert passes == [1]


def test_an_error_of_the_model_reaches_those_who_wait_and_the_thread_goes_on(served, pixels, monkeypatch):
    first = served.worker._passes[0]
    with monkeypatch.context() as patch:
        patch.setattr(first, "answers_as_they_come", lambda batches: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            answer(served.worker, pixels[0]).result(60)
    assert answer(served.worker, pixels[0]).result(60).probabilities.sum() == pytest.approx(1)
    with pytest.raises(ZeroDivisionError):
        served.worker.run(lambda: 1 / 0).result(60)
