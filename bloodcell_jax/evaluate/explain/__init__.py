"""What a prediction rests on: where in the image, beside which training images, and among which others of its split."""
