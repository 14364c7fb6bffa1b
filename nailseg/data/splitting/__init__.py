"""Divides a data set into train, val and test without dividing groups of related images.

`index` writes the CSV: it pairs images with masks, and calls `grouping` (groups by name, folder, column and
near-duplicates), `near_duplicates` and `data.assign`, which the manifest uses too (splits and folds).
"""
