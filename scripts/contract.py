"""Holds the public contract to its rules: nothing that a released client uses goes away or changes.

    python scripts/contract.py check              compare protos/ with the committed baseline; look for missing comments
    python scripts/contract.py move               make protos/ the baseline: only after the version was raised
    python scripts/contract.py archive            dist/mxgw-protos-VERSION.zip: the .proto files, for generators

The baseline, `protos/contract.binpb`, is a FileDescriptorSet of the public packages; `protos/contract.version` says of
which version it is. What is added is no change for a client, so the baseline need not move with it.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf import descriptor_pb2 as pb
from google.protobuf.message import Message

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
BASELINE = PROTOS / "contract.binpb"
BASELINE_VERSION = PROTOS / "contract.version"
# The generator of scripts/generate_protos.sh, which makes its environment.
_GENERATOR = ROOT / ".venv-proto" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
PUBLIC = ("mxgw.v1", "mxgw.dashboard.v1")
_TYPES = pb.FieldDescriptorProto.Type
_LABELS = pb.FieldDescriptorProto.Label
# Generated code is imported by these names.
_OPTIONS = (
    "csharp_namespace",
    "go_package",
    "java_multiple_files",
    "java_outer_classname",
    "java_package",
    "objc_class_prefix",
    "php_namespace",
    "ruby_package",
    "swift_prefix",
)


def breaking_changes(old: pb.FileDescriptorSet, new: pb.FileDescriptorSet) -> list[str]:
    """Return what a client that was made with `old` would miss or misread with `new`, one sentence each."""
    before, after = _elements(old), _elements(new)
    problems = []
    for name, facts in before.items():
        if name not in after:
            # What is inside something that went away is not reported beside it.
            if _parent(name) not in before or _parent(name) in after:
                problems.append(f"{name} was removed or renamed")
            continue
        for what, value in facts.items():
            now = after[name].get(what, "")
            if now != value:
                problems.append(f"{name}: {what} was {value or 'not set'} and is {now or 'not set'}")
    return problems


def missing_comments(files: pb.FileDescriptorSet) -> list[str]:
    """Return the services, RPCs, messages and enums without a comment. The set must have source information."""
    missing = []
    for file in _own(files):
        said = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}
        for path, name in _commented(file):
            if path not in said:
                missing.append(f"{file.name}: {name} has no comment")
    return missing


def _own(files: pb.FileDescriptorSet) -> Iterator[pb.FileDescriptorProto]:
    """Yield the files without those of protobuf itself, which buf wants in an image."""
    return (file for file in files.file if not file.name.startswith("google/"))


def _commented(file: pb.FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield the path of each element that needs a comment, as SourceCodeInfo names it, and the element's name."""
    for n, message in enumerate(file.message_type):
        yield (4, n), message.name
    for n, enum in enumerate(file.enum_type):
        yield (5, n), enum.name
    for n, service in enumerate(file.service):
        yield (6, n), service.name
        for m, method in enumerate(service.method):
            yield (6, n, 2, m), f"{service.name}.{method.name}"


def _parent(name: str) -> str:
    kind, _, path = name.partition(" ")
    if kind in ("field", "oneof"):
        return f"message {path.rpartition('.')[0]}"
    if kind == "value":
        return f"enum {path.rpartition('.')[0]}"
    if kind == "rpc":
        return f"service {path.rpartition('.')[0]}"
    return f"message {path.rpartition('.')[0]}"


def _elements(files: pb.FileDescriptorSet) -> dict[str, dict[str, str]]:
    """Return every element of the contract by kind and full name, with the facts that must stay."""
    found: dict[str, dict[str, str]] = {}
    for file in _own(files):
        # A file can be imported by its name, and some languages name their modules after it.
        found[f"file {file.name}"] = {"package": file.package} | {
            option: str(getattr(file.options, option)) for option in _OPTIONS
        }
        for message in file.message_type:
            _add_message(found, file.package, message)
        for enum in file.enum_type:
            _add_enum(found, file.package, enum)
        for service in file.service:
            name = f"{file.package}.{service.name}"
            found[f"service {name}"] = {}
            for method in service.method:
                found[f"rpc {name}.{method.name}"] = {
                    "request": method.input_type,
                    "response": method.output_type,
                    "client streaming": str(method.client_streaming),
                    "server streaming": str(method.server_streaming),
                }
    return found


def _add_message(found: dict[str, dict[str, str]], scope: str, message: pb.DescriptorProto) -> None:
    name = f"{scope}.{message.name}"
    found[f"message {name}"] = {"map entry": str(message.options.map_entry)}
    # A number that was given up stays reserved, so that no other field gets it.
    for span in message.reserved_range:
        for number in range(span.start, span.end):
            found[f"message {name}"][f"reserved number {number}"] = "reserved"
    for word in message.reserved_name:
        found[f"message {name}"][f"reserved name {word}"] = "reserved"
    for field in message.field:
        in_oneof = field.HasField("oneof_index") and not field.proto3_optional
        found[f"field {name}.{field.name}"] = {
            "number": str(field.number),
            "type": field.type_name or _TYPES.Name(field.type),
            "label": "optional" if field.proto3_optional else _LABELS.Name(field.label),
            "oneof": message.oneof_decl[field.oneof_index].name if in_oneof else "",
            "packed": str(field.options.packed) if field.options.HasField("packed") else "",
            "JSON name": field.json_name or _json_name(field.name),
        }
    synthetic = {field.oneof_index for field in message.field if field.proto3_optional}
    for index, oneof in enumerate(message.oneof_decl):
        if index not in synthetic:
            found[f"oneof {name}.{oneof.name}"] = {}
    for nested in message.nested_type:
        _add_message(found, name, nested)
    for enum in message.enum_type:
        _add_enum(found, name, enum)


def _add_enum(found: dict[str, dict[str, str]], scope: str, enum: pb.EnumDescriptorProto) -> None:
    name = f"{scope}.{enum.name}"
    found[f"enum {name}"] = {}
    for span in enum.reserved_range:
        for number in range(span.start, span.end + 1):
            found[f"enum {name}"][f"reserved number {number}"] = "reserved"
    for value in enum.value:
        found[f"value {name}.{value.name}"] = {"number": str(value.number)}


def _json_name(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def public_protos() -> list[Path]:
    """Return the .proto files of the public packages, in order."""
    return sorted(path for package in PUBLIC for path in PROTOS.joinpath(*package.split(".")).glob("*.proto"))


def compiled(*, with_comments: bool = False) -> pb.FileDescriptorSet:
    """Return the descriptors of the public packages as protos/ has them now."""
    names = [path.relative_to(PROTOS).as_posix() for path in public_protos()]
    with tempfile.TemporaryDirectory() as directory:
        image = Path(directory) / "image.binpb"
        options = ["-I", str(PROTOS), "--include_imports", f"--descriptor_set_out={image}"]
        options += ["--include_source_info"] * with_comments
        subprocess.run([str(_GENERATOR), "-m", "grpc_tools.protoc", *options, *names], check=True)
        return pb.FileDescriptorSet.FromString(image.read_bytes())


def project_version() -> str:
    """Return the version in pyproject.toml."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def may_move(baseline_version: str, version: str) -> bool:
    """Return whether the baseline may move: only to a later version."""
    return _numbers(version) > _numbers(baseline_version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def write_archive(target: Path, files: Iterable[Path]) -> None:
    """Write a zip of the .proto files and the licence; the same files make the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in (*files, ROOT / "LICENSE"):
            name = path.relative_to(PROTOS if path.is_relative_to(PROTOS) else ROOT).as_posix()
            # The default date of ZipInfo is 1980, whenever the archive is made.
            archive.writestr(zipfile.ZipInfo(name), path.read_bytes(), zipfile.ZIP_DEFLATED)


def _check() -> int:
    now = compiled(with_comments=True)
    problems = breaking_changes(pb.FileDescriptorSet.FromString(BASELINE.read_bytes()), now)
    version = BASELINE_VERSION.read_text().strip()
    sys.stderr.writelines(f"protos/: {problem}\n" for problem in problems)
    if problems:
        sys.stderr.write(
            f"This breaks clients of {version}. Add beside it instead, or raise the version: see buf.yaml\n"
        )
    uncommented = missing_comments(now)
    sys.stderr.writelines(f"protos/{line}\n" for line in uncommented)
    if not problems and not uncommented:
        sys.stdout.write(f"protos/: the contract keeps what clients of {version} use\n")
    return 1 if problems or uncommented else 0


def _move() -> int:
    baseline, version = BASELINE_VERSION.read_text().strip(), project_version()
    if not may_move(baseline, version):
        sys.stderr.write(f"protos/: the baseline is of {baseline}; it moves only with a later version than {version}\n")
        return 1
    _write_image(BASELINE, compiled())
    BASELINE_VERSION.write_text(f"{version}\n")
    return 0


def _write_image(path: Path, image: Message) -> None:
    path.write_bytes(image.SerializeToString(deterministic=True))


def main(arguments: list[str]) -> int:
    match arguments:
        case ["check"]:
            return _check()
        case ["move"]:
            return _move()
        case ["archive"]:
            target = ROOT / "dist" / f"mxgw-protos-{project_version()}.zip"
            target.parent.mkdir(exist_ok=True)
            write_archive(target, public_protos())
            sys.stdout.write(f"{target}\n")
            return 0
    sys.stderr.write(f"{__doc__}\n")
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
