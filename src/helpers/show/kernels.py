"""Kernels that end without a word."""

from __future__ import annotations

from jupyter_client.manager import AsyncKernelManager

WIDGET = "application/vnd.jupyter.widget-view+json"
"""How a kernel calls a widget among the outputs of a cell."""


class QuietKernelManager(AsyncKernelManager):
    """Start and end kernels. One that is to end is asked to, and not interrupted first.

    jupyter_client interrupts every kernel that it shuts down, and the kernel logs "KeyboardInterrupt caught in kernel"
    where this meets it between two messages. It is idle then; one that is not is killed a few seconds later.
    """

    async def _async_interrupt_kernel(self) -> None:
        if not self.shutting_down:
            await super()._async_interrupt_kernel()
