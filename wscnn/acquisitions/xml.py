"""XML of instruments and of OME: elements one by one, and names without namespace."""

from collections.abc import Collection, Iterator
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import iterparse

from wscnn.core.errors import UserError


def elements(path: Path, names: Collection[str]) -> Iterator[tuple[str, Element]]:
    """Yield the elements of an XML file whose name is one of `names`, each with its name without namespace.

    An element is cleared once the next is requested, so that files with a million images need little memory.

    Raises
    ------
    UserError
        When the file cannot be read, is not XML, or declares entities (a few of which can fill any memory).
    """
    try:
        for _, element in iterparse(path, events=("end",)):
            name = local(element.tag)
            if name in names:
                yield name, element
                element.clear()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except DefusedXmlException:
        raise UserError(f"{path}: declares XML entities, which no instrument does; export the plate again") from None
    except (ParseError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not valid XML ({reason}); copy it again from the instrument") from None


def local(tag: str) -> str:
    """Return an XML name without its namespace."""
    return tag.rpartition("}")[2]


def children(element: Element) -> dict[str, Element]:
    """Return the direct children of an element by name; of several of one name, the last."""
    return {local(child.tag): child for child in element}


def attributes(element: Element) -> dict[str, str]:
    """Return the attributes of an element by name without namespace."""
    return {local(name): value for name, value in element.attrib.items()}
