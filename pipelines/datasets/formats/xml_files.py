"""XML files with the line of each element, in any encoding that Python knows."""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pipelines.datasets.faults import Fault, FaultKind
from pipelines.datasets.files import why_not_fetched
from pipelines.photos import ImageError

_ENCODING = re.compile(rb"""\A\s*<\?xml[^>]*?\sencoding\s*=\s*["']([\w.:-]+)["']""")
_WIDER = {"gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "euc-kr": "cp949"}
"""Windows writes these and means those, which hold all of them."""
_EXPATS_OWN = ("utf-8", "iso-8859-1", "us-ascii")


@dataclass(frozen=True)
class XmlFile:
    """An XML file with the line that each of its elements starts on."""

    uri: str
    root: Element
    lines: Mapping[Element, int]

    def where(self, element: Element) -> str:
        return f"{self.uri}:{self.lines[element]}"


def parse_xml(uri: str, body: bytes | ImageError) -> XmlFile:
    """Raises Fault: the file could not be read, or is not XML."""
    if isinstance(body, ImageError):
        raise Fault(FaultKind.UNREADABLE, uri, why_not_fetched(body))
    builder = TreeBuilder()
    lines: dict[Element, int] = {}
    text, encoding = _in_utf_8(uri, body)
    parser = expat.ParserCreate(encoding)

    def start(tag: str, attributes: dict[str, str]) -> None:
        lines[builder.start(tag, attributes)] = parser.CurrentLineNumber

    parser.StartElementHandler = start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        parser.Parse(text, True)
        return XmlFile(uri, builder.close(), lines)
    except (expat.ExpatError, ValueError) as error:
        where = f"{uri}:{parser.CurrentLineNumber}"
        raise Fault(FaultKind.UNREADABLE, where, _told(error)) from error


def _in_utf_8(uri: str, body: bytes) -> tuple[bytes, str | None]:
    """(text, its encoding); None where the file itself tells it in a way that expat knows."""
    declared = _ENCODING.match(body)  # never of UTF-16 proper, whose letters have two bytes
    name = declared[1].decode().lower() if declared else "utf-8"
    if body.startswith(codecs.BOM_UTF8) or name.startswith("utf-16"):
        return body, "utf-8"  # .NET writes text that it calls UTF-16 to files in UTF-8
    if name in _EXPATS_OWN:
        return body, None
    try:
        return body.decode(_WIDER.get(name, name)).encode(), "utf-8"
    except LookupError as error:
        message = f"nobody here knows the encoding {name!r}: save the file as UTF-8"
        raise Fault(FaultKind.UNREADABLE, f"{uri}:1", message) from error
    except UnicodeError as error:
        line = body.count(b"\n", 0, getattr(error, "start", 0)) + 1
        message = f"is not in the encoding that it claims, {name!r}: save the file as UTF-8"
        raise Fault(FaultKind.UNREADABLE, f"{uri}:{line}", message) from error


def _told(error: Exception) -> str:
    if "invalid token" in str(error):
        return (
            f"{error}: if it is text, the file says no encoding and is not UTF-8; save it as that"
        )
    return str(error)


def _refuse_doctype(*_: object) -> None:
    # Entities that stand for each other can unfold a kilobyte to gigabytes; VOC has none.
    raise ValueError("has a DOCTYPE, which VOC does not have: remove that line")
