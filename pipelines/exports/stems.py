"""For formats with a file per photo, named after it: can every photo have one?"""

from pipelines.errors import InputError
from pipelines.exports.selection import Selection

_WAY_OUT = "with --copy_photos every photo gets a name of its own"


def require_stems(selection: Selection) -> None:
    """Raises InputError where two photos would share a file, or one would not be found.

    Copies have names that are made for this.
    """
    if selection.copies:
        return
    root = {"after": len(selection.root) + 1}
    odd = selection.connection.execute(_ODD, root).fetchone()
    if odd:
        raise InputError(f"{odd[0]!r} has no name that this format can use: {_WAY_OUT}")
    shared = selection.connection.execute(_SHARED, root).fetchone()
    if shared:
        one, other = shared
        raise InputError(
            f"{one} and {other} differ in their suffix only, and would share one file of labels: "
            f"{_WAY_OUT}"
        )


_NAMES = """
    WITH names AS (
        SELECT image_uri, substr(image_uri, $after) AS name
        FROM photos WHERE status = 'labelled'
    )
"""
# Folders called nothing, . or .. lead elsewhere, a line break ends a line of a list, and of a path
# with several folders `images` YOLO's readers take the last one for that of the photos.
_ODD = rf"""
    {_NAMES} SELECT image_uri FROM names
    WHERE regexp_matches(name, '(^|/)(\.{{0,2}}|images)/|(^|/)\.{{0,2}}$|[\r\n]')
    ORDER BY image_uri LIMIT 1
"""
_SHARED = rf"""
    {_NAMES} SELECT min(image_uri), max(image_uri) FROM names
    GROUP BY regexp_replace(name, '([^/])\.[^./]*$', '\1')
    HAVING count(*) > 1 ORDER BY 1 LIMIT 1
"""
