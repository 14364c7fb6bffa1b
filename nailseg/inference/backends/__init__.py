"""What runs a network: torch for model folders and checkpoints, ONNX Runtime and OpenVINO for exported files.

`base` holds the `Backend` protocol, `exported` finds and opens exported files, and `as_module` turns one into
a torch module for testing. Only `torch` and `as_module` import torch.
"""
