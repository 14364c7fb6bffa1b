"""Finds what is wrong with a data set before a command uses it.

`scan` decodes the files of each row once, `rules` find issues in the scans, and `validate` repeats the rules
until no more rows are left out. An issue (`data.issues`) has a code, a severity, a file, a message and a fix.
`command` is `nailseg check`, with `statistics`, `contact_sheet` and `clean_copy`.
"""
