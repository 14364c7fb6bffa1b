"""Finds what is wrong with a data set before a command uses it.

`scan` decodes the files of each row once, `rules` find issues (`data.issues`) in the scans, and `validate`
repeats the rules until no more rows are left out. `command` is `nailseg check`, with `statistics`,
`contact_sheet` and `clean_copy`.
"""
