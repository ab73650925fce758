"""The answer to a LIST, read quickly: botocore's parser takes 75 ms for a thousand objects.

In that time nothing else happens in the process. What S3 writes there is flat and always the same,
so a regular expression reads it in 2 ms; botocore still reads all that is around the objects.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from html import unescape
from typing import Any
from urllib.parse import unquote_plus

Page = Sequence[tuple[str, str, int, str]]
"""Key, ETag, size and time of some objects, in order, plain enough to be marshalled."""

_OURS = "Objects"
_END = "</ListBucketResult>"
_FIELD = re.compile(r"<(\w+)>([^<]*)</")


def take_objects(
    response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any
) -> None:
    """A handler of botocore's before-parse: a page's objects leave its body, for `page_of`.

    What is no whole page is left to botocore, which says what it is.
    """
    text = response_dict["body"].decode()
    if response_dict["status_code"] == 200 and text.rstrip().endswith(_END):
        before, *objects = text.split("<Contents>")
        behind = (text.partition("</Contents>")[2] for text in objects)
        response_dict["body"] = "".join([before, *behind]).encode()
        customized_response_dict[_OURS] = [dict(_FIELD.findall(text)) for text in objects]


def page_of(answer: Mapping[str, Any]) -> Page:
    """The objects in botocore's answer to a LIST."""
    decode = unquote_plus if answer.get("EncodingType") == "url" else unescape
    return [_object(fields, decode) for fields in answer[_OURS]]


def _object(fields: Mapping[str, str], decode: Callable[[str], str]) -> tuple[str, str, int, str]:
    etag = fields.get("ETag", "").replace("&quot;", '"').replace("&#34;", '"').strip('"')
    return decode(fields["Key"]), etag, int(fields["Size"]), fields["LastModified"]
