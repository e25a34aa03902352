"""The simulated Galaxy: areas, objects and their attributes. In names, upper and lower case make no difference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mxgw.convert import mapped_data_type
from mxgw.v1 import commands_pb2 as c
from mxgw.v1.values_pb2 import MxSecurityClassification
from mxgw_worker.backends.base import E_INVALIDARG, MxError
from mxgw_worker.backends.sim.coerce import Value
from mxgw_worker.backends.sim.items import Attribute
from mxgw_worker.backends.sim.references import WHOLE_ARRAY, absolute, parse
from mxgw_worker.backends.sim.status import DataType, Detail, Refused, Security

_ATTRIBUTES = "_attributes"
_DESCRIPTION = ".description"


class SimObject:
    """An area or an application object. `parent` is the tag name of its area; it is "" at the root."""

    is_area = False

    def __init__(self, tag_name: str, parent: str = "", description: str = "") -> None:
        self.tag_name = tag_name
        self.parent = parent
        self.description = description
        self._attributes: dict[str, Attribute] = {}
        # Parts of the object that are no attributes. The alarm manager finds its alarm points here.
        self.parts: list[object] = []
        self.add("Tagname", DataType.STRING, tag_name, "Name of this object")
        self.add("ShortDesc", DataType.INTERNATIONALIZED_STRING, description, "What this object is")
        self.add("Area", DataType.REFERENCE, parent, "Area this object belongs to")

    def add(
        self, name: str, data_type: DataType, value: Value, description: str = "", *, names: Sequence[str] = ()
    ) -> Attribute:
        """Add an attribute that clients can only read."""
        return self._add(Attribute(name, data_type, value, description, names=names))

    def add_writeable(
        self,
        name: str,
        data_type: DataType,
        value: Value,
        description: str = "",
        *,
        security: Security = Security.OPERATE,
        low: float | None = None,
        high: float | None = None,
        names: Sequence[str] = (),
    ) -> Attribute:
        """Add an attribute that clients can write, if `security` allows it."""
        return self._add(
            Attribute(
                name, data_type, value, description, security=security, writeable=True, low=low, high=high, names=names
            )
        )

    def _add(self, attribute: Attribute) -> Attribute:
        attribute.object_name = self.tag_name
        self._attributes[attribute.name.lower()] = attribute
        return attribute

    def attributes(self) -> Iterator[Attribute]:
        """Return the attributes that a browse lists, in the order in which they were added."""
        yield from self._attributes.values()

    def stamp(self, time_ns: int) -> None:
        """Set the time of every value that has no time yet."""
        for attribute in self._attributes.values():
            attribute.time_ns = attribute.time_ns or time_ns

    def find(self, name: str) -> Attribute | None:
        """Return the attribute of this name, whether in upper or lower case; None when there is none.

        `<Attribute>.Description` and `_Attributes` (docs/reference/mxaccess.md#references) exist for every object. They
        are made when they are looked up.
        """
        key = name.lower()
        attribute = self._attributes.get(key)
        if attribute is not None:
            return attribute
        if key == _ATTRIBUTES:
            listed = tuple(attribute.name for attribute in self.attributes())
            made = Attribute("_Attributes", DataType.STRING, listed, "Names of the attributes of this object")
        elif key.endswith(_DESCRIPTION) and (described := self._attributes.get(key.removesuffix(_DESCRIPTION))):
            made = Attribute(f"{described.name}.Description", DataType.INTERNATIONALIZED_STRING, described.description)
            made.time_ns, made.immune = described.time_ns, described.immune
        else:
            return None
        made.object_name = self.tag_name
        return made


class Area(SimObject):
    """An object that contains other objects."""

    is_area = True


class Galaxy:
    """All objects of a profile."""

    def __init__(self) -> None:
        self._objects: dict[str, SimObject] = {}

    def add(self, sim_object: SimObject) -> SimObject:
        """Add an object to the area that it names. This area must exist already."""
        if sim_object.parent and sim_object.parent.lower() not in self._objects:
            raise ValueError(f"{sim_object.tag_name}: there is no area {sim_object.parent}")
        self._objects[sim_object.tag_name.lower()] = sim_object
        return sim_object

    def objects(self) -> Iterator[SimObject]:
        """Return all objects. An area comes before the objects that it contains."""
        yield from self._objects.values()

    def stamp(self, time_ns: int) -> None:
        """Set the time of every value that has no time yet."""
        for sim_object in self._objects.values():
            sim_object.stamp(time_ns)

    def find(self, definition: str, context: str = "") -> tuple[Attribute, int | None]:
        """Return the attribute and the index that a reference means. The reference is relative to the object `context`,
        if this is given.

        Raises:
            Refused: there is no such attribute; the detail says what is wrong with the reference.
        """
        if not context:
            return self._find_absolute(definition)
        holder = self._objects.get(context.strip().lower())
        try:
            return self._find_absolute(absolute(definition, context.strip(), holder.parent if holder else ""))
        except Refused as relative:
            try:
                return self._find_absolute(definition)
            except Refused:
                raise relative from None

    def _find_absolute(self, definition: str) -> tuple[Attribute, int | None]:
        reference = parse(definition)
        sim_object = self._objects.get(reference.object_name.lower())
        if sim_object is None:
            raise Refused(Detail.INVALID_OBJECT_ID)
        attribute = sim_object.find(reference.attribute_name)
        if attribute is None:
            raise Refused(Detail.INVALID_ATTRIBUTE_ID)
        if not attribute.is_array:
            if reference.index is not None:
                raise Refused(Detail.WRONG_NUMBER_OF_DIMENSIONS)
        elif reference.index is None and reference.attribute_name.lower() != _ATTRIBUTES:
            # An array needs a suffix (docs/reference/mxaccess.md#references). Only `_Attributes` is read without a
            # suffix.
            raise Refused(Detail.INDEX_OUT_OF_RANGE)
        # An element beyond the end of an array can be bound, because the array can grow. Until then it reports detail
        # 1003.
        return attribute, reference.index

    def describe(self, definition: str, context: str) -> c.ItemMetadata | MxError:
        """Return what the object of a reference says about it, or why it says nothing."""
        try:
            attribute, index = self.find(definition, context)
        except Refused as refused:
            return MxError(E_INVALIDARG, f"no item {definition!r}: detail {int(refused.detail)}")
        is_array = attribute.is_array and index in (None, WHOLE_ARRAY)
        assert not is_array or isinstance(attribute.value, tuple)
        return c.ItemMetadata(
            data_type=mapped_data_type(attribute.data_type),
            source_data_type=attribute.data_type.name,
            is_array=is_array,
            # A write to a whole array sets its length, so that it may have any (docs/reference/mxaccess.md#references).
            array_dimensions=[0] if is_array else [],
            readable=True,
            writeable=_is_writeable(attribute),
            security_classification=MxSecurityClassification.ValueType(attribute.security + 2),
            description=attribute.description,
            range=None
            if attribute.low is None or attribute.high is None
            else c.ValueRange(low=attribute.low, high=attribute.high),
            enumeration=[c.EnumerationName(value=value, name=name) for value, name in enumerate(attribute.names)],
        )

    def browse(self, parent: str) -> list[c.BrowseNode]:
        """Return the children of an area, of an object, or of an attribute with sub-attributes. "" means the root.

        Raises:
            MxError: there is no such node.
        """
        key = parent.strip().lower()
        if not key:
            return [_object_node(o) for o in self._objects.values() if not o.parent]
        tag_name, _, attribute_name = key.partition(".")
        sim_object = self._objects.get(tag_name)
        if sim_object is None or (attribute_name and sim_object.find(attribute_name) is None):
            raise MxError(E_INVALIDARG, f"there is nothing called {parent!r} to browse; start from the root with ''")
        if attribute_name:
            return _attribute_nodes(sim_object, attribute_name)
        inner = [_object_node(o) for o in self._objects.values() if o.parent.lower() == key]
        return inner + _attribute_nodes(sim_object, "")


def _object_node(sim_object: SimObject) -> c.BrowseNode:
    return c.BrowseNode(
        name=sim_object.tag_name,
        path=sim_object.tag_name,
        kind=c.BROWSE_NODE_KIND_AREA if sim_object.is_area else c.BROWSE_NODE_KIND_OBJECT,
        has_children=True,
        description=sim_object.description,
    )


def _is_writeable(attribute: Attribute) -> bool:
    return attribute.writeable and attribute.security != Security.VIEW_ONLY


def _attribute_nodes(sim_object: SimObject, above: str) -> list[c.BrowseNode]:
    attributes = list(sim_object.attributes())
    holders = {a.name.lower().rpartition(".")[0] for a in attributes}
    return [
        c.BrowseNode(
            name=a.name.rpartition(".")[2],
            path=f"{sim_object.tag_name}.{a.name}",
            reference=a.reference,
            kind=c.BROWSE_NODE_KIND_ATTRIBUTE,
            data_type=mapped_data_type(a.data_type),
            is_array=a.is_array,
            writeable=_is_writeable(a),
            security_classification=MxSecurityClassification.ValueType(a.security + 2),
            has_children=a.name.lower() in holders,
            description=a.description,
        )
        for a in attributes
        if a.name.lower().rpartition(".")[0] == above
    ]
