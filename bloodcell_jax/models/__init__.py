"""Networks: ConvNeXt V1 and V2 under timm's names, and the small custom CNN."""

from bloodcell_jax.models.registry import create_model

__all__ = ["create_model"]
