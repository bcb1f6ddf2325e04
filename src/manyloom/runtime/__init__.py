"""Who answers an Ask, and where: `local`, in this process."""

from manyloom.runtime.local import Local as local

__all__ = ["local"]
