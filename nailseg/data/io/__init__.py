"""Image and mask files to arrays: the one place of the package that decodes files.

`headers` reads format, size and EXIF orientation, `images` decodes images to uint8 RGB, and `masks` decodes
masks to the values in the file. Every problem of a file is an `IssueError` with a code and a fix.
"""
