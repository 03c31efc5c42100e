"""Manifests: tables that name image files with their labels, splits and groups."""
