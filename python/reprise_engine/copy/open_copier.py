"""The copier for the device on which a KV cache lies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reprise_engine.copy.layout import LayoutError

if TYPE_CHECKING:
    from reprise_engine.copy.copier import Copier
    from reprise_engine.copy.layout import Layout
    from reprise_engine.copy.pool_map import Registrar


def open_copier(layout: Layout, staging_bytes: int) -> tuple[Copier, Registrar | None]:
    """The copier, and what makes a pool known to its device. What a device does not need is not imported.

    @throws LayoutError for a device of another kind; OSError, RuntimeError when it has no room, or no driver.
    """
    kind = layout.device.type
    if kind == "cpu":
        from reprise_engine.copy.copy_host import HostCopier

        return HostCopier(layout), None
    if kind == "cuda":
        from reprise_engine.copy.copy_cuda import CudaRegistrar
        from reprise_engine.copy.probe import open_fastest

        return open_fastest(layout, staging_bytes), CudaRegistrar(layout.device)
    raise LayoutError(f"the KV cache lies on a device of kind {kind}; cpu and cuda (also ROCm) are known")
