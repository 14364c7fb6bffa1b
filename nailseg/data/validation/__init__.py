"""Finds what is wrong with a data set before a command uses it.

`scan` decodes the files of each row once, `rules` find issues in what the scans contain, and `validate` does
both until no more rows are left out. An issue has a code, a file, a message and a fix; `issues` lists the
codes of errors and warnings. `command` is `nailseg check`, with `statistics`, `contact_sheet` and
`clean_copy`.
"""
