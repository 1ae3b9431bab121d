"""A server that takes its CPU for two graphics cards where it samples. A part of such a server's custom nodes."""

import comfy.model_management
import torch

NODE_CLASS_MAPPINGS = {}
CARDS = [torch.device("cpu"), torch.device("cpu", 1)]
comfy.model_management.get_all_torch_devices = lambda exclude_current=False: CARDS[exclude_current:]
