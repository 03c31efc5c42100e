"""The local page and the JSON API of a model: requests, limits, batches across requests, and what a browser is sent."""
