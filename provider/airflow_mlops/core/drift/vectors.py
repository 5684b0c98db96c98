"""Arrow arrays as numpy's, without a detour.

``pyarrow.Array.to_numpy`` imports pandas where that is installed, which takes a second and 50 MB of memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

    Array: TypeAlias = np.ndarray[Any, Any]


def vector(array: Any) -> Array:
    """Return an Arrow array of integers or floats as numpy's, without a copy; where it has nulls stands anything."""
    import numpy as np

    dtype = np.dtype(_NAMES.get(str(array.type), str(array.type)))
    buffer = array.buffers()[1]
    if buffer is None or not len(array):
        return np.zeros(len(array), dtype=dtype)
    return np.frombuffer(buffer, dtype, count=len(array), offset=array.offset * dtype.itemsize)


def mask(array: Any) -> Array:
    """Return an Arrow array of booleans that has no nulls as numpy's."""
    import pyarrow as pa

    return vector(array.cast(pa.uint8())).view(bool)


#: What Arrow calls otherwise than numpy.
_NAMES = {"halffloat": "float16", "float": "float32", "double": "float64"}
