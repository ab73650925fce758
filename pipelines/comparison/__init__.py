"""Comparison: what one run found on photos, held to what another one found on them."""

import lazy_loader

# A name is imported when it is asked for: who parses flags need not wait for torch or Ray.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
