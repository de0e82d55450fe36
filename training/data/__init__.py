"""COCO annotations and image-category pairs."""
