"""A builder of TensorFlow Datasets that needs no TensorFlow: it writes any source once into array_record.

The citation, description and license are those of the published data. `bloodcell prepare` makes such a dataset, and
`tfds:blood_cells/NAME` reads it.
"""
