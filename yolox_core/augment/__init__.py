"""Augmentation of whole batches: uint8 canvases and their targets, on the CPU or a GPU.

All randomness comes from the generator given, so that a run can be repeated. B = images, M =
targets, N = the canvases that an image's mosaic and mixup may be made of.
"""

import lazy_loader

# A name is imported when it is asked for: who parses flags need not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
