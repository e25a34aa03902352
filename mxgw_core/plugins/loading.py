"""Imports one plugin by its entry point and registers it. When this fails, the error is a sentence for its author."""

from __future__ import annotations

import inspect
import traceback
from importlib.metadata import EntryPoint
from pathlib import Path

import pluggy

import mxgw_core
from mxgw_core.api.access import ACCESS_HOOKS
from mxgw_core.api.hookspecs import Hooks
from mxgw_core.config.problems import nearest
from mxgw_core.exception_groups import innermost
from mxgw_core.plugins.former import CHANGES, instead_of
from mxgw_core.plugins.required_api import why_not

# The text of a plugin's exception is shortened to this many characters.
_LONGEST_TEXT = 300
_CORE = str(Path(mxgw_core.__file__).parent)

HOOKS: tuple[str, ...] = tuple(name for name in vars(Hooks) if name.startswith("mxgw_"))


class LoadFailure(Exception):
    """A plugin cannot be used. The text says why. This exception is used inside this package only."""


def describe(error: BaseException, *, with_text: bool = True) -> str:
    """Return type, text and place of an exception as a printable text of limited length.

    When the exception is about a name that `mxgw_core.api` had in an earlier release, the text ends with what took the
    place of the name. With `with_text` false, leave out the text of the exception, because it can contain credentials.
    Nothing is raised: an exception class of a plugin can be broken too, and raise SystemExit when it is shown.
    """
    try:
        return _description(error, with_text=with_text)
    except BaseException:
        return f"{class_name(error)}, which cannot be shown"


def _description(error: BaseException, *, with_text: bool) -> str:
    if (first := innermost(error)) is not error:
        return f"{class_name(error)} of {describe(first, with_text=with_text)}"
    text = "".join(c if c.isprintable() else " " for c in text_of(error)).strip() if with_text else ""
    if len(text) > _LONGEST_TEXT:
        text = text[: _LONGEST_TEXT - 3] + "..."
    frames = traceback.extract_tb(error.__traceback__)
    # When a function of the gateway that a plugin calls has raised the error, the plugin's own line is more useful.
    at = next((frame for frame in reversed(frames) if not frame.filename.startswith(_CORE)), None)
    at = at or (frames[-1] if frames else None)
    place = f" ({at.filename}:{at.lineno})" if at is not None else ""
    advice = f": {instead}; {CHANGES}" if (instead := instead_of(error)) else ""
    return f"{class_name(error)}{': ' if text else ''}{text}{place}{advice}"


def text_of(value: object) -> str:
    """Return `str(value)` of an object of a plugin; "" when this raises anything."""
    try:
        text = str(value)
        return str.__str__(text)  # not an instance of a class that a plugin has derived from `str`
    except BaseException:
        return ""


def class_name(value: object) -> str:
    """Return the name of the class of an object of a plugin, without running code of the plugin."""
    return _name_of(type(value))


def _name_of(found: type) -> str:
    name: str = vars(type)["__name__"].__get__(found)  # a metaclass can have a `__name__` that raises
    return str.__str__(name)


def imported(entry: EntryPoint) -> object:
    """Import the class, object or module that the entry point names, and return it.

    Raises:
        LoadFailure: the import raised an exception, or the object is a function or None, or it needs another version of
            the plugin API.
    """
    try:
        found: object = entry.load()
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if entry.module == missing or entry.module.startswith(f"{missing}."):
            raise LoadFailure(f"its module {entry.module!r} is not there; reinstall the distribution") from error
        if missing.startswith("mxgw_core."):
            instead = instead_of(error) or "plugins import mxgw_core.api only"
            raise LoadFailure(
                f"it imports {missing!r}, which this release of mxgw does not have: {instead}; {CHANGES}"
            ) from error
        raise LoadFailure(f"it needs the module {missing!r}, which is not installed") from error
    except KeyboardInterrupt:  # the person at the terminal wants the gateway to end
        raise
    except BaseException as error:
        raise LoadFailure(f"importing {entry.value!r} raised {describe(error)}") from error
    _check_api(found)
    if found is None or inspect.isroutine(found):
        raise LoadFailure(f"entry point {entry.value!r} must be a class, an object or a module")
    return found


def made(found: object) -> object:
    """Return an instance when `found` is a class, and otherwise `found` itself.

    Raises:
        LoadFailure: the constructor raised an exception.
    """
    if not inspect.isclass(found):
        return found
    try:
        instance: object = found()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadFailure(f"constructing {_name_of(found)}() raised {describe(error)}") from error
    return instance


def access_hooks_of(plugin: object) -> list[str]:
    """Return the hooks of a plugin, or of a plugin's class, that decide about access.

    A hook that is not usable counts too, for example one that is not marked, or whose name is nearly that of a hook.
    """
    names = (name for name in dir(plugin) if name.startswith("mxgw_"))
    functions = [name for name in names if inspect.isroutine(inspect.getattr_static(plugin, name, None))]
    return [name for name in functions if (name if name in HOOKS else nearest(name, HOOKS)) in ACCESS_HOOKS]


def _check_api(plugin: object) -> None:
    """Refuse a plugin whose `requires_api` does not include the version of the plugin API that this release has."""
    try:
        requires = getattr(plugin, "requires_api", None)
        problem = why_not(requires) if requires is not None else ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise LoadFailure(f"reading its requires_api raised {describe(error)}") from error
    if problem:
        raise LoadFailure(problem)


def register(plugins: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Check the hooks of a plugin, and register it.

    Raises:
        LoadFailure: the plugin has no hook; or one of its hooks does not exist, is not marked with `hookimpl`, is
            asynchronous, is a wrapper, or has wrong parameters. The plugin is then not registered.
    """
    _check_marks(plugins, plugin)
    try:
        plugins.register(plugin, name=name)
    except pluggy.PluginValidationError as error:
        raise LoadFailure(f"{' '.join(str(error).split())}; {CHANGES}") from error
    except ValueError as error:
        raise LoadFailure("another enabled plugin is the same object") from error
    try:
        plugins.check_pending()
        _check_implementations(plugins, plugin)
    except pluggy.PluginValidationError as error:
        unknown = [caller.name for caller in plugins.get_hookcallers(plugin) or () if not caller.has_spec()]
        plugins.unregister(name=name)
        raise LoadFailure("; ".join(_unknown_hook(hook) for hook in unknown) or str(error)) from error
    except LoadFailure:
        plugins.unregister(name=name)
        raise


def _unknown_hook(name: str) -> str:
    match = nearest(name, HOOKS)
    return f"there is no hook {name!r}; " + (f"did you mean {match!r}? " if match else "") + CHANGES


def _check_marks(plugins: pluggy.PluginManager, plugin: object) -> None:
    """Refuse a plugin with a hook that is not marked with `hookimpl`. pluggy would ignore such a hook and report no
    error.
    """
    for name in dir(plugin):
        if not name.startswith("mxgw_") or not inspect.isroutine(inspect.getattr_static(plugin, name, None)):
            continue
        if plugins.parse_hookimpl_opts(plugin, name) is None:
            raise LoadFailure(f"{name} is not marked with @hookimpl from mxgw_core.api")


def _check_implementations(plugins: pluggy.PluginManager, plugin: object) -> None:
    # The loop also checks functions of plugins that were registered before. They have passed the same checks already.
    callers = plugins.get_hookcallers(plugin) or []
    if not callers:
        raise LoadFailure("it implements no hook; mark them with @hookimpl from mxgw_core.api")
    for caller in callers:
        for implementation in caller.get_hookimpls():
            function = implementation.function
            if implementation.wrapper or implementation.hookwrapper:
                raise LoadFailure(f"{caller.name} is a wrapper; each plugin is asked alone, so it would wrap nothing")
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise LoadFailure(f"{caller.name} is asynchronous; hooks are plain functions")
            # pluggy passes no values to parameters that have a default or a star, so such parameters are a mistake.
            if extra := set(inspect.signature(function).parameters) - set(implementation.argnames):
                raise LoadFailure(
                    f"{caller.name}: parameter {', '.join(sorted(extra))} must be plain, without default or star"
                )
