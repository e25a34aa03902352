"""The event loop of the gateway: it goes on when a callback of a plugin raises SystemExit.

A callback is what a plugin gives to `call_soon`, `call_later`, `add_done_callback`, `add_signal_handler` and the like.
asyncio ends the loop when a callback raises SystemExit. Nothing of the loop is lost then, so it is simply run again.
(Tasks of plugins do not raise SystemExit, see `mxgw_core.plugins.tasks`.)
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import traceback
from collections.abc import Callable, Collection, Mapping

from mxgw_core.plugins.host import PluginHost
from mxgw_core.plugins.loading import describe
from mxgw_worker.platform import event_loop_class

log = logging.getLogger(__name__)

# Stands for a hook: which hook has left a callback in the loop is not known.
_CALLBACK = "callback"


def gateway_loop(plugins: PluginHost, *, use_uvloop: bool) -> asyncio.AbstractEventLoop:
    """Return a new event loop for a gateway with these plugins. With `use_uvloop`, it is uvloop's, where there is one.

    When a callback raises SystemExit, the loop goes on, and the plugin with the callback has failed once more.
    """
    base = _base(use_uvloop=use_uvloop)
    loop: _ResumedLoop = type("GatewayLoop", (_ResumedLoop, base), {})()
    loop.on_exit = _Exits(plugins)
    return loop


def _base(*, use_uvloop: bool) -> type[asyncio.AbstractEventLoop]:
    if use_uvloop and importlib.util.find_spec("uvloop") is not None:
        import uvloop

        return uvloop.Loop
    return event_loop_class()


class _ResumedLoop(asyncio.AbstractEventLoop):
    """The first base class of a loop; the second one is the loop's own. `on_exit` is called with each SystemExit."""

    on_exit: Callable[[SystemExit], object]
    _is_stop_asked = False

    def stop(self) -> None:
        self._is_stop_asked = True
        super().stop()

    def run_forever(self) -> None:
        try:
            while True:
                try:
                    super().run_forever()
                    return
                except SystemExit as error:
                    self.on_exit(error)
                    if self._is_stop_asked:  # `stop` and the exit came in one turn of the loop
                        return
        finally:
            self._is_stop_asked = False


class _Exits:
    """Records a SystemExit of a callback as a failure of its plugin, which is found by the modules of the traceback."""

    def __init__(self, plugins: PluginHost) -> None:
        self._plugins = plugins
        # They are stored now, because the hooks of a plugin that has failed are forgotten.
        self._modules = plugins.modules

    def __call__(self, error: SystemExit) -> None:
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            plugin = _plugin_of(str(frame.f_globals.get("__name__", "")), self._modules)
            if plugin:
                self._plugins.calls.owner(plugin, _CALLBACK).failed(_CALLBACK, error)
                return
        log.error("a callback in the event loop raised %s; the gateway goes on", describe(error))


def _plugin_of(module: str, modules: Mapping[str, Collection[str]]) -> str:
    """Return the plugin of which a module has the most of its name in common; "" when there is none, or several."""
    places = {
        plugin: max(_in_common(module.split("."), name.split(".")) for name in names)
        for plugin, names in modules.items()
        if names
    }
    most = max(places.values(), default=0)
    found = [plugin for plugin, in_common in places.items() if in_common == most]
    return found[0] if most and len(found) == 1 else ""


def _in_common(one: list[str], other: list[str]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
