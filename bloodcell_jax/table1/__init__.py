"""The report's table again: its rows and ours, trained on the same images and tested on the same test images."""
