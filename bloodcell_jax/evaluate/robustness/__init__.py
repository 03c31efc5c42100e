"""How well a classifier answers on corrupted images: suites of corruptions, the pass over them and its scores."""
