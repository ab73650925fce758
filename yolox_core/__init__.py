"""The YOLOX detector: model, decoding, label assignment, loss, checkpoints. No Ray in here."""

import lazy_loader

# A name is imported when it is asked for: who parses flags need not wait for torch.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
