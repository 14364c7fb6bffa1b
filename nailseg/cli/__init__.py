"""The command line: `main` has the verbs, `runner` the exit codes, `lightning` fit, validate, test, train.

`arguments` prepares what Lightning parses; `cross_validation` and `auto_config` are options of a training;
`tryon` is a verb. This is the only package that knows both training and evaluation.
"""
