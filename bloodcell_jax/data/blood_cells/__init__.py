"""A TensorFlow Datasets builder, without TensorFlow: any source, prepared once into array_record.

`citation`, description and licence are those of what is published; `bloodcell prepare` makes such a data set and
`tfds:blood_cells/NAME` reads it.
"""
